"""In which order the relay publishes, whatever is planned, when, and how urgent."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import DrawFn, composite, integers, lists, sampled_from, tuples
from sqlalchemy import Engine, delete, insert

from app import db
from app.models import OUTBOX_ENTRIES
from app.outbox import publish, pump
from app.outbox.pump import Pump
from app.routing import QUEUE_NAMES
from tests.database import on_sqlite
from tests.fakes import FakeBroker, FakeClock

START = datetime(2026, 7, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
BATCH = 4

Planned = tuple[int, int, str, str]
"""Priority, seconds until it is due, queue, and how its id begins."""


@composite
def arrivals(draw: DrawFn) -> list[list[Planned]]:
    """What is planned before each of the relay's rounds. Few instants, so that many are equal."""
    entry = tuples(integers(0, 9), integers(0, 2), sampled_from(QUEUE_NAMES), sampled_from("abc"))
    return draw(lists(lists(entry, max_size=9), min_size=1, max_size=5))


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for module in (publish, pump):
        monkeypatch.setattr(module, "BATCH", BATCH)
    publish._of_unpublished.cache_clear()
    yield
    publish._of_unpublished.cache_clear()


@on_sqlite
@pytest.mark.usefixtures("small_batches")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(arrivals())
def test_each_batch_is_the_most_urgent_then_the_longest_due_at_that_moment(
    database: Engine, planned: list[list[Planned]]
) -> None:
    with db.transaction() as session:
        session.execute(delete(OUTBOX_ENTRIES))
    broker = FakeBroker(FakeClock(START))
    relay = Pump(database, broker, margin=timedelta(days=1), max_publishes=3)
    waiting: set[tuple[int, datetime, str]] = set()
    rounds = iter(planned)
    while (arrived := next(rounds, None)) is not None or waiting:
        now = broker.clock.now
        for number, (priority, seconds, queue, letter) in enumerate(arrived or ()):
            entry = (priority, now + seconds * SECOND, f"{letter}{now:%S}{number}")
            waiting.add(entry)
            insert_entry(*entry, queue)
        expected = sorted(each for each in waiting if each[1] <= now)[:BATCH]
        before = len(broker.pushed)
        assert relay.run().published == len(expected)
        assert [each.id for each in broker.pushed[before:]] == [each[2] for each in expected]
        waiting.difference_update(expected)
        broker.clock.now += SECOND


def insert_entry(priority: int, due_at: datetime, entry_id: str, queue: str) -> None:
    with db.transaction() as session:
        session.execute(
            insert(OUTBOX_ENTRIES),
            {
                "id": entry_id,
                "task": "app.tasks.email.deliver",
                "queue": queue,
                "priority": priority,
                "created_at": START - timedelta(hours=1),
                "due_at": due_at,
            },
        )
