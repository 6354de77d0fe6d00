"""What the demo asks of each module, and that it notices where something is missing."""

from dataclasses import replace
from datetime import UTC, timedelta

import pytest
from sqlalchemy import Engine, delete, update
from sqlalchemy.orm import Session

from app import db
from app.adapters.slot_cache import CachedSlots
from app.models import Booking, BookingStatus, DailyMetrics, Notification, UserSession
from app.services import analytics, availability, lessons, notifications
from scripts.demonstration import people
from scripts.demonstration.effects import look
from scripts.demonstration.past import relive
from tests.builders import NOON

DAY = timedelta(days=1)
YESTERDAY = (NOON - DAY).date()


@pytest.fixture
def cached(database: Engine) -> dict[int, CachedSlots]:
    """A marketplace in which every module has done its work."""
    residents = people.move_in()
    relive(residents, zone=UTC, now=NOON)
    with db.transaction() as session:
        lessons.settle(session, now=NOON)
        analytics.generate_daily(session, None, due_at=NOON, zone=UTC, now=NOON)
        session.execute(delete(UserSession).where(UserSession.expires_at <= NOON))
        for lesson in session.query(Booking):
            for kind in notifications.TRUE_OF:
                notifications.notify_booking(session, lesson.id, kind, now=NOON)
        instructors = {lesson.instructor_id for lesson in session.query(Booking)}
        everybody = availability.free_slots(
            session, range(1, people.STUDENTS + people.INSTRUCTORS + 1), now=NOON
        )
        assert instructors <= everybody.keys()
    return {
        instructor_id: CachedSlots(instructor_id, 1, NOON, slots.time_zone, slots.starts)
        for instructor_id, slots in everybody.items()
    }


def problems(session: Session, cached: dict[int, CachedSlots]) -> str:
    session.flush()
    return "; ".join(look(session, cached, yesterday=YESTERDAY, zone=UTC, now=NOON).problems)


def test_where_every_module_did_its_work_there_is_nothing_to_say(
    cached: dict[int, CachedSlots],
) -> None:
    with db.reading() as session:
        assert problems(session, cached) == ""


def test_a_missed_lesson_that_nobody_marked_is_noticed(cached: dict[int, CachedSlots]) -> None:
    with Session(db.engine()) as session:
        session.execute(
            update(Booking)
            .where(Booking.status == BookingStatus.NO_SHOW)
            .values(status=BookingStatus.COMPLETED)
        )
        assert "0 of 2 missed lessons" in problems(session, cached)


def test_metrics_that_a_recount_does_not_find_are_noticed(cached: dict[int, CachedSlots]) -> None:
    with Session(db.engine()) as session:
        session.get_one(DailyMetrics, YESTERDAY).revenue_cents += 1
        assert "a recount says" in problems(session, cached)


def test_a_session_that_should_be_gone_is_noticed(cached: dict[int, CachedSlots]) -> None:
    with Session(db.engine()) as session:
        session.execute(update(UserSession).values(expires_at=NOON - DAY))
        assert "4 expired sessions are left" in problems(session, cached)


def test_a_slot_that_is_missing_or_wrong_is_noticed(cached: dict[int, CachedSlots]) -> None:
    first, second, *_ = cached
    entry = cached[first]
    cached[first] = replace(entry, starts={m: s[1:] for m, s in entry.starts.items()})
    del cached[second]
    with db.reading() as session:
        said = problems(session, cached)
    assert f"instructor {first} are not those of the tables" in said
    assert f"no slots of instructor {second} are cached" in said


def test_a_person_whom_nobody_told_is_noticed(cached: dict[int, CachedSlots]) -> None:
    with Session(db.engine()) as session:
        session.execute(update(Booking).values(status=BookingStatus.CONFIRMED))
        session.execute(delete(Notification))
        assert "2 sides of lesson 1 have no notification" in problems(session, cached)
