from datetime import date

import pytest
from celery import states
from sqlalchemy import select

from app import db, outbox
from app.models import DailyMetrics, OutboxEntry, OutboxState
from app.outbox.broker import OutboxMessage
from app.tasks import analytics
from tests.fakes import FakeBroker
from tests.tracing import deliver
from tests.unit.tasks.conftest import entry


def counted() -> list[date]:
    with db.reading() as session:
        return list(session.scalars(select(DailyMetrics.date).order_by(DailyMetrics.date)))


def message(broker: FakeBroker, task: str, *args: object) -> OutboxMessage:
    with db.transaction() as session:
        outbox.enqueue(session, task, *args)
    return broker.pushed[-1]


def test_the_scheduled_run_counts_yesterday(broker: FakeBroker) -> None:
    run = message(broker, analytics.generate_daily.name)
    assert deliver(analytics.generate_daily, run).result == {
        "date": "2026-06-30",
        "services": 0,
        "instructors": 0,
    }
    assert counted() == [date(2026, 6, 30)]
    assert entry(run.id).state is OutboxState.DONE


def test_a_run_that_is_late_counts_the_day_that_it_was_planned_for(broker: FakeBroker) -> None:
    run = message(broker, analytics.generate_daily.name)
    broker.clock.advance(days=3)
    deliver(analytics.generate_daily, run)
    assert counted() == [date(2026, 6, 30)]


@pytest.mark.parametrize("day", ["2026-07-01", "someday"])
def test_a_day_that_cannot_be_counted_is_a_dead_letter_at_once(
    broker: FakeBroker, day: str
) -> None:
    run = message(broker, analytics.generate_daily.name, day)
    assert deliver(analytics.generate_daily, run).state == states.FAILURE
    letter = entry(run.id)
    assert (letter.state, letter.tries, counted()) == (OutboxState.DEAD, 0, [])
    assert letter.errors[0]["error"].startswith("WrongDayError: ")
    assert day in letter.errors[0]["error"]


def test_a_backfill_counts_each_of_its_days(broker: FakeBroker) -> None:
    run = message(broker, analytics.backfill.name, "2026-06-28", "2026-06-30")
    assert deliver(analytics.backfill, run).result["days"] == 3
    for planned in broker.pushed[1:]:
        deliver(analytics.generate_daily, planned)
    with db.reading() as session:
        tasks = select(OutboxEntry).where(OutboxEntry.task == analytics.generate_daily.name)
        assert {row.state for row in session.scalars(tasks)} == {OutboxState.DONE}
    assert counted() == [date(2026, 6, 28), date(2026, 6, 29), date(2026, 6, 30)]
