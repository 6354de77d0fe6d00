"""Locust's page: a choice of users and shapes, bad input in words, and a tab with the queues."""

import json
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from scripts.live.deployment import Deployment
from scripts.live.ports import HOST, free_port
from tests.integration.loadtests.conftest import Locust

pytestmark = pytest.mark.timeout(240)
PATIENCE = 60.0  # seconds


class Page:
    def __init__(self, address: str) -> None:
        self._url = address

    def get(self, path: str = "/") -> str:
        with urllib.request.urlopen(self._url + path, timeout=PATIENCE) as answer:  # noqa: S310
            return str(answer.read().decode())

    def post(self, path: str, *fields: tuple[str, str]) -> dict[str, Any]:
        data = urllib.parse.urlencode(fields).encode()
        with urllib.request.urlopen(self._url + path, data, timeout=PATIENCE) as answer:  # noqa: S310
            return dict(json.loads(answer.read()))

    def start(self, host: str, *classes: str) -> dict[str, Any]:
        chosen = [("user_classes", name) for name in classes]
        fields = [("user_count", "3"), ("spawn_rate", "9"), ("host", host), *chosen]
        return self.post("/swarm", *fields)

    def queues(self) -> dict[str, dict[str, Any]]:
        """The rows of the tab by queue."""
        told = json.loads(self.get("/stats/requests"))
        (table,) = told["extended_stats"]
        return {row["queue"]: row for row in table["data"]}


@pytest.fixture
def page(locust: Locust) -> Iterator[Page]:
    process, address = locust.start_page("--patience=3")
    yield Page(address)
    assert process.terminate(30) == 0, process.log_text()


def test_the_page_offers_users_and_shapes(page: Page) -> None:
    told = page.get()
    assert '"show_userclass_picker": true' in told
    for name in ("BookLessons", "FloodAnalytics", "MorningStorm", "Soak", "Queues"):
        assert f'"{name}"' in told


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("", "--host is missing"),
        ("redis://127.0.0.1:1/0", "--host: no Redis answers at redis://127.0.0.1:1/0"),
    ],
    ids=["no host", "no Redis"],
)
def test_bad_input_is_said_on_the_page_and_nothing_starts(page: Page, host: str, said: str) -> None:
    answer = page.start(host)
    assert answer["success"] is False
    assert answer["message"].startswith(said)
    assert json.loads(page.get("/stats/requests"))["state"] == "ready"


def test_chosen_users_run_twice_and_the_queues_are_shown_while_they_do(
    page: Page, live: Deployment, locust: Locust
) -> None:
    live.start_worker()
    for _ in range(2):
        assert page.start(live.redis_url, "BookLessons")["success"] is True
        deadline = time.monotonic() + PATIENCE
        while "notifications" not in (seen := page.queues()):
            assert time.monotonic() < deadline
            time.sleep(0.5)
        assert set(seen) == {"bookings", "email", "notifications"}
        assert seen["bookings"]["messages"] >= 1
        assert seen["bookings"]["in_queue_p99"].endswith("s")
        assert page.post("/stop")["success"] is True
        assert json.loads(page.get("/stats/requests"))["state"] == "stopped"
    assert locust.waiting() == 0


def test_a_master_runs_test_after_test_and_says_when_it_has_no_worker(
    live: Deployment, locust: Locust
) -> None:
    live.start_worker()
    port = free_port()
    master, address = locust.start_page(
        *("--master", f"--master-bind-port={port}", f"--master-bind-host={HOST}", "--patience=3")
    )
    page = Page(address)
    answer = page.start(live.redis_url, "BookLessons")
    assert answer["success"] is False
    assert answer["message"].startswith("no worker of locust is connected")
    worker = locust.start("--worker", f"--master-port={port}")
    ready = "(?s)reported as ready.*?"
    for _ in range(2):
        master.wait_for_line(ready, timeout=PATIENCE)
        ready += "reported as ready.*?"
        assert page.start(live.redis_url, "BookLessons")["success"] is True
        deadline = time.monotonic() + PATIENCE
        while "notifications" not in page.queues():
            assert time.monotonic() < deadline
            time.sleep(0.5)
        assert page.post("/stop")["success"] is True
    master.wait_for_line(ready, timeout=PATIENCE)
    assert locust.waiting() == 0
    assert master.terminate(30) == 0, master.log_text()
    assert worker.wait(30) == 0, worker.log_text()
