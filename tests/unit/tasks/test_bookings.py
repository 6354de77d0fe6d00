from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from app import db, outbox
from app.domain.no_shows import GRACE
from app.models import Booking, BookingStatus
from app.tasks.bookings import complete_finished, expire_pending, mark_no_shows
from tests.builders import a_lesson, all_notifications
from tests.fakes import FakeBroker
from tests.tracing import deliver

OUTAGE = timedelta(days=9)


@pytest.fixture
def long_ago(broker: FakeBroker) -> datetime:
    """Since then nothing has run, and one lesson of each kind waits to be settled."""
    began = broker.clock.now - OUTAGE
    with db.transaction() as session:
        a_lesson(session, starts_at=began)
        a_lesson(
            session, starts_at=began, student_checked_in_at=began, instructor_checked_in_at=began
        )
        a_lesson(session, starts_at=began, status=BookingStatus.PENDING)
        a_lesson(session, starts_at=broker.clock.now - GRACE)
    return began


def run(task: Any, broker: FakeBroker, *, due_at: datetime | None = None) -> Any:
    with db.transaction() as session:
        outbox.enqueue(session, task.name, at=due_at)
    return deliver(task, next(each for each in broker.pushed if each.task == task.name)).result


def lessons() -> list[Booking]:
    with db.reading() as session:
        return list(session.scalars(select(Booking).order_by(Booking.id)))


def test_the_check_settles_all_that_an_outage_has_left_over(
    broker: FakeBroker, long_ago: datetime
) -> None:
    result = run(mark_no_shows, broker, due_at=long_ago)
    assert result == {"no_shows": 1, "completed": 1, "expired": 1}
    missed, held, unconfirmed, going_on = lessons()
    assert (missed.status, missed.no_show_at) == (BookingStatus.NO_SHOW, broker.clock.now)
    assert (held.status, held.completed_at) == (BookingStatus.COMPLETED, broker.clock.now)
    assert (unconfirmed.status, unconfirmed.cancelled_at) == (
        BookingStatus.CANCELLED,
        broker.clock.now,
    )
    assert going_on.status is BookingStatus.CONFIRMED


def test_a_check_that_is_delivered_twice_tells_once(broker: FakeBroker, long_ago: datetime) -> None:
    run(mark_no_shows, broker)
    message = next(each for each in broker.pushed if each.task == mark_no_shows.name)
    assert deliver(mark_no_shows, message).result["status"] == "skipped"
    with db.reading() as session:
        assert len(all_notifications(session)) == 6


@pytest.mark.parametrize(
    ("task", "result"), [(complete_finished, {"completed": 1}), (expire_pending, {"expired": 1})]
)
def test_one_kind_is_settled_by_itself(
    broker: FakeBroker, long_ago: datetime, task: Any, result: dict[str, int]
) -> None:
    assert run(task, broker) == result
    untouched = [lesson for lesson in lessons() if lesson.status is BookingStatus.CONFIRMED]
    assert len(untouched) == 2 + (task is expire_pending)
