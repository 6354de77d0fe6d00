"""The monitoring profile: every process is found, and every query of the dashboard answered."""

import time

import pytest

from scripts.live.compose import Compose
from scripts.live.prometheus import Prometheus, dashboard_queries
from tests.e2e.conftest import UP_TAKES_SECONDS
from tests.e2e.test_compose import BOOK

pytestmark = pytest.mark.timeout(UP_TAKES_SECONDS)

FOUND_WITHIN_SECONDS = 90
ANSWERED_WITHIN_SECONDS = 240
EXPECTED = {"celery_worker": 4, "celery_beat": 2}

PLAN = """
import sys
from app import db, outbox

with db.transaction() as session:
    outbox.enqueue(session, *sys.argv[1:])
"""


def test_it_scrapes_every_worker_and_beat(prometheus: Prometheus) -> None:
    deadline = time.monotonic() + FOUND_WITHIN_SECONDS
    while True:
        targets = prometheus.ask("targets")["activeTargets"]
        up = [target["labels"]["job"] for target in targets if target["health"] == "up"]
        found = {job: up.count(job) for job in EXPECTED}
        if found == EXPECTED or time.monotonic() > deadline:
            break
        time.sleep(2)
    assert found == EXPECTED, targets


def test_it_can_answer_what_an_operator_asks(prometheus: Prometheus) -> None:
    answer = prometheus.samples("max(celery_queue_depth) by (queue)")
    assert "bookings" in {one["metric"]["queue"] for one in answer}


def test_every_query_of_the_dashboard_returns_data(
    deployment: Compose, prometheus: Prometheus
) -> None:
    """Under some work, of which one task fails for good and one is tried again."""
    deployment.python("flower", PLAN, "app.tasks.email.send_booking_confirmation", "no number")
    deployment.run("stop", "mail")
    try:
        deployment.python("flower", BOOK, "cas@people.example", "dee@people.example")
        retries = ("Retries", "sum(celery_task_retries_total) > 0")
        assert unanswered(prometheus, deployment, [retries]) == []
    finally:
        deployment.run("start", "mail")
    assert unanswered(prometheus, deployment, dashboard_queries()) == []


def unanswered(
    prometheus: Prometheus, deployment: Compose, queries: list[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Those that have had no data at any time until a deadline, while there is work."""
    deadline = time.monotonic() + ANSWERED_WITHIN_SECONDS
    while queries and time.monotonic() < deadline:
        deployment.python("flower", PLAN, "app.tasks.cleanup.delete_expired_sessions")
        queries = [(title, query) for title, query in queries if not prometheus.samples(query)]
    return queries
