"""Flower in a browser: our workers and tasks, their states, what they returned."""

import re
import time
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from scripts.live.compose import Compose
from scripts.live.ports import HOST
from tests.e2e.browser import LOAD_SECONDS, requested, shoot
from tests.e2e.conftest import UP_TAKES_SECONDS

pytestmark = pytest.mark.timeout(UP_TAKES_SECONDS)

HEALTH = "app.tasks.health.health_check"
CLEANUP = "app.tasks.cleanup.delete_expired_sessions"
CONFIRM = "app.tasks.email.send_booking_confirmation"
PLAN = """
import sys
from app import db, outbox

with db.transaction() as session:
    planned = outbox.enqueue(session, *sys.argv[1:])
print(planned)
"""


def address(compose: Compose, path: str) -> str:
    return f"http://{HOST}:{compose.ports['FLOWER_PORT']}/{path}"


def workers(compose: Compose) -> set[str]:
    """As Celery names them: after the hosts of their containers."""
    containers = [
        *compose.containers("celery_worker"),
        *compose.containers("celery_worker_bulk"),
    ]
    return {f"celery@{container['Config']['Hostname']}" for container in containers}


def call(compose: Compose, task: str) -> str:
    command = ("exec", "-T", "celery_worker", "celery", "-A", "app.tasks", "call", task)
    return compose.run(*command, "--args=[]").stdout.strip()


def open_when_ended(page: Page, compose: Compose, task_id: str) -> Locator:
    """The page of a task, opened again until the task has ended; its table of details."""
    deadline = time.monotonic() + LOAD_SECONDS
    ended = page.get_by_text(re.compile("^(SUCCESS|FAILURE)$"))
    while True:
        page.goto(address(compose, f"task/{task_id}"))
        if ended.count() or time.monotonic() > deadline:
            return page.locator("#main-content")
        page.wait_for_timeout(1000)


def test_it_shows_every_worker_online(deployment: Compose, page: Page) -> None:
    page.goto(address(deployment, "workers"))
    rows = page.locator("#workers-table tbody tr")
    expect(rows).to_have_count(4, timeout=1000 * LOAD_SECONDS)
    expect(rows.get_by_text("Online")).to_have_count(4, timeout=1000 * LOAD_SECONDS)
    shown = {re.sub(r"\s", "", name) for name in rows.locator("td:first-child").all_inner_texts()}
    assert shown == workers(deployment)
    shoot(page, "flower-workers")


def test_it_shows_the_tasks_and_their_states(deployment: Compose, page: Page) -> None:
    called = call(deployment, HEALTH)
    planned = deployment.python("flower", PLAN, CLEANUP).strip()
    refused = deployment.python("flower", PLAN, CONFIRM, "no number").strip()
    for task_id in (called, planned, refused):
        open_when_ended(page, deployment, task_id)
    page.set_viewport_size({"width": 1600, "height": 800})
    page.goto(address(deployment, "tasks"))
    table = page.locator("#tasks-table")
    for task_id, name, state in (
        (called, HEALTH, "SUCCESS"),
        (planned, CLEANUP, "SUCCESS"),
        (refused, CONFIRM, "FAILURE"),
    ):
        row = table.locator(f'tr[id="{task_id}"]')
        expect(row).to_contain_text(name)
        expect(row).to_contain_text(state)
        assert re.sub(r"\s", "", row.locator("td").last.inner_text()) in workers(deployment)
    shoot(page, "flower-tasks")


def test_it_shows_the_result_of_a_task_that_is_called_by_hand(
    deployment: Compose, page: Page
) -> None:
    details = open_when_ended(page, deployment, call(deployment, HEALTH))
    expect(details).to_contain_text("SUCCESS")
    expect(details).to_contain_text("'database': 'ok'")
    shoot(page, "flower-result")


def test_it_shows_what_work_of_the_outbox_returned_though_no_result_is_stored(
    deployment: Compose, page: Page
) -> None:
    """From the event that tells of its end: docs/decisions/0006."""
    planned = deployment.python("flower", PLAN, CLEANUP).strip()
    details = open_when_ended(page, deployment, planned)
    expect(details).to_contain_text("SUCCESS")
    expect(details).to_contain_text("'deleted': {'sessions': 0}")
    keys = deployment.run(
        "exec", "-T", "redis", "redis-cli", "exists", f"celery-task-meta-{planned}"
    )
    assert keys.stdout.strip() == "0"


def test_it_shows_why_a_task_failed(deployment: Compose, page: Page) -> None:
    refused = deployment.python("flower", PLAN, CONFIRM, "no number").strip()
    details = open_when_ended(page, deployment, refused)
    expect(details).to_contain_text("FAILURE")
    expect(details).to_contain_text("DataError")
    expect(details).to_contain_text("Traceback (most recent call last)")
    shoot(page, "flower-failure")


def test_it_asks_nobody_else_for_anything(deployment: Compose, page: Page) -> None:
    asked = requested(page)
    for path in ("workers", "tasks", "broker"):
        page.goto(address(deployment, path), wait_until="networkidle")
    assert [url for url in asked if not url.startswith(address(deployment, ""))] == []


def test_the_hardened_one_shows_nothing_before_the_login(hardened: Compose, page: Page) -> None:
    for path in ("", "workers", "tasks", "broker", "task/1", "api/workers"):
        # Chromium makes an error of a refusal without a body.
        answer = page.request.get(address(hardened, path))
        assert answer.status == 401
        assert "celery" not in answer.text()


def test_the_hardened_one_shows_the_workers_after_the_login(
    hardened: Compose, secrets: Path, chromium: Browser
) -> None:
    name, _, password = (secrets / "flower_login").read_text().strip().partition(":")
    login = {"username": name, "password": password}
    with chromium.new_context(http_credentials=login) as context:
        page = context.new_page()
        page.goto(address(hardened, "workers"))
        rows = page.locator("#workers-table tbody tr")
        expect(rows.get_by_text("Online")).to_have_count(2, timeout=1000 * LOAD_SECONDS)
        shown = {
            re.sub(r"\s", "", each) for each in rows.locator("td:first-child").all_inner_texts()
        }
        assert shown == workers(hardened)
        shoot(page, "flower-after-the-login")
