"""Locust's page in a browser, from the choice of users to the figures of each queue."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from playwright.sync_api import Page, expect

from scripts.live.deployment import Deployment
from scripts.live.redis_server import NoRedisServerError, RedisServer
from tests.e2e.browser import LOAD_SECONDS, complaints, shoot
from tests.integration.loadtests.conftest import Locust

pytestmark = pytest.mark.timeout(480)

PATIENCE = 1000 * LOAD_SECONDS  # milliseconds


@pytest.fixture
def live(tmp_path: Path, missing_service: Callable[[str], NoReturn]) -> Iterator[Deployment]:
    try:
        server = RedisServer(folder=tmp_path / "redis")
    except NoRedisServerError as error:
        missing_service(str(error))
    with server, Deployment(redis_url=server.url, folder=tmp_path / "live") as deployment:
        yield deployment


@pytest.fixture
def address(live: Deployment, tmp_path: Path) -> str:
    _, where = Locust(live, tmp_path / "locust").start_page("--patience=3")
    return where


def test_a_person_chooses_is_told_what_is_wrong_and_reads_the_queues(
    page: Page, live: Deployment, address: str
) -> None:
    wrong = complaints(page)
    page.goto(address, timeout=PATIENCE)
    expect(page.get_by_text("FloodMaintenance")).to_be_attached(timeout=PATIENCE)
    page.fill("input[name=userCount]", "25")
    page.fill("input[name=spawnRate]", "25")
    page.fill("input[name=host]", live.redis_url)
    start = page.get_by_role("button", name="Start")
    start.click()
    expect(page.get_by_text(f"no worker answers on {live.redis_url}")).to_be_visible(
        timeout=PATIENCE
    )
    live.start_worker()
    start.click()
    page.get_by_role("tab", name="Queues").click(timeout=PATIENCE)
    row = page.get_by_role("row").filter(has=page.get_by_role("cell", name="bookings", exact=True))
    expect(row).to_contain_text(" ms", timeout=PATIENCE)
    shoot(page, "load-test-queues")
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("STOPPED")).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_role("cell", name="maintenance", exact=True)).to_be_visible()
    shoot(page, "load-test-queues-at-the-end")
    assert wrong == []
