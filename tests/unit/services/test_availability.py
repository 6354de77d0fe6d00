from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine, event, func, select
from sqlalchemy.orm import Session

from app.domain.availability import SLOT_STEP, AvailabilityChange, DateException, WeeklyWindow
from app.domain.bookings import MIN_LEAD
from app.models import AvailabilityWindow, BookingStatus, StaleAvailability
from app.services import availability
from app.services.availability import DAYS_AHEAD, free_slots, mark_stale
from app.services.errors import MissingRowError
from tests.builders import NOON, a_lesson, a_service, a_student, an_instructor

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
MONDAY = NOON.date()
TUESDAY_9_TO_11 = WeeklyWindow(1, 9 * 60, 11 * 60)


def changes(session: Session) -> dict[int, int]:
    rows = session.execute(select(StaleAvailability.instructor_id, StaleAvailability.changes))
    return dict(rows.all())


def starts(session: Session, instructor_id: int, *, now: datetime = NOON) -> list[datetime]:
    (found,) = free_slots(session, [instructor_id], now=now)[instructor_id].starts.values()
    return list(found)


@contextmanager
def counted(engine: Engine) -> Iterator[list[str]]:
    statements: list[str] = []

    def note(*args: object) -> None:
        statements.append(str(args[2]))

    event.listen(engine, "before_cursor_execute", note)
    yield statements
    event.remove(engine, "before_cursor_execute", note)


def test_a_changes_mark_counts_the_changes(session: Session) -> None:
    one, other = an_instructor(session), an_instructor(session)
    mark_stale(session, one.id, now=NOON)
    mark_stale(session, other.id, one.id, one.id, now=NOON)
    mark_stale(session, now=NOON)
    assert changes(session) == {one.id: 2, other.id: 1}


def test_new_windows_take_the_place_of_the_old_and_make_the_slots_stale(session: Session) -> None:
    instructor = an_instructor(session)
    availability.set_weekly_windows(session, instructor.id, [TUESDAY_9_TO_11], now=NOON)
    rows = session.execute(
        select(AvailabilityWindow.weekday, AvailabilityWindow.starts_minute).where(
            AvailabilityWindow.instructor_id == instructor.id
        )
    )
    assert [tuple(row) for row in rows] == [(1, 540)]
    assert changes(session) == {instructor.id: 1}


def test_a_second_change_is_noted_with_its_own_instant(session: Session) -> None:
    instructor = an_instructor(session)
    later = NOON + timedelta(minutes=5)
    for now in (NOON, later):
        availability.mark_stale(session, instructor.id, now=now)
    assert session.scalars(select(StaleAvailability.changed_at)).all() == [later]


def test_an_exception_changes_one_date_and_makes_the_slots_stale(session: Session) -> None:
    instructor = an_instructor(session, time_zone="UTC", windows=[TUESDAY_9_TO_11])
    a_service(session, instructor=instructor, minutes=120)
    next_week = MONDAY + 8 * DAY
    blocked = DateException(next_week, AvailabilityChange.BLOCKED, 0, 1440)
    extra = DateException(MONDAY + 2 * DAY, AvailabilityChange.EXTRA, 600, 720)
    for exception in (blocked, extra):
        availability.add_exception(session, instructor.id, exception, now=NOON)
    assert starts(session, instructor.id) == [
        datetime(2026, 3, 3, 9, tzinfo=UTC),
        datetime(2026, 3, 4, 10, tzinfo=UTC),
    ]
    assert changes(session) == {instructor.id: 2}


def test_only_an_instructor_has_windows_and_exceptions(session: Session) -> None:
    student = a_student(session)
    exception = DateException(MONDAY, AvailabilityChange.BLOCKED, 0, 60)
    with pytest.raises(MissingRowError, match=f"instructor {student.id}"):
        availability.set_weekly_windows(session, student.id, [], now=NOON)
    with pytest.raises(MissingRowError, match="instructor 999"):
        availability.add_exception(session, 999, exception, now=NOON)


def test_slots_are_those_of_fourteen_local_dates_from_the_shortest_lead_on(
    session: Session,
) -> None:
    zone = ZoneInfo("Pacific/Kiritimati")
    instructor = an_instructor(session, time_zone=str(zone))
    a_service(session, instructor=instructor, minutes=15)
    found = starts(session, instructor.id)
    today = NOON.astimezone(zone).date()
    assert today != NOON.date()
    assert found[0] == NOON + SLOT_STEP
    assert found[-1].astimezone(zone).date() == today + (DAYS_AHEAD - 1) * DAY
    assert starts(session, instructor.id, now=NOON - MIN_LEAD)[0] == NOON


def test_each_length_that_an_instructor_offers_has_its_slots(session: Session) -> None:
    instructor = an_instructor(session, time_zone="UTC", windows=[TUESDAY_9_TO_11])
    for minutes in (60, 120, 60, 180):
        a_service(session, instructor=instructor, minutes=minutes)
    found = free_slots(session, [instructor.id], now=NOON)[instructor.id]
    tuesday = datetime(2026, 3, 3, 9, tzinfo=UTC)
    week = 7 * DAY
    assert found.starts == {
        60: [tuesday + after + n * SLOT_STEP for after in (0 * DAY, week) for n in range(5)],
        120: [tuesday, tuesday + week],
        180: [],
    }
    assert found.time_zone == "UTC"


@pytest.mark.parametrize("status", BookingStatus)
def test_what_the_database_would_refuse_is_not_free(
    session: Session, status: BookingStatus
) -> None:
    service = a_service(session, minutes=60)
    lesson = a_lesson(session, starts_at=NOON + 2 * HOUR, status=status, service=service)
    found = starts(session, service.instructor_id)
    near = {start for start in found if abs(start - lesson.starts_at) < HOUR}
    assert bool(near) == (status is BookingStatus.CANCELLED)
    assert {lesson.starts_at - HOUR, lesson.ends_at} <= set(found)


def test_a_lesson_that_has_begun_takes_the_rest_of_its_time(session: Session) -> None:
    service = a_service(session, minutes=60)
    lesson = a_lesson(session, starts_at=NOON - HOUR / 2, service=service)
    assert starts(session, service.instructor_id)[0] == lesson.ends_at


def test_many_instructors_need_as_many_statements_as_one(
    session: Session, database: Engine
) -> None:
    ids = [a_service(session).instructor_id for _ in range(30)]
    with counted(database) as for_one:
        free_slots(session, ids[:1], now=NOON)
    with counted(database) as for_many:
        assert list(free_slots(session, ids, now=NOON)) == ids
    assert len(for_many) == len(for_one)


def test_who_is_no_instructor_is_left_out(session: Session) -> None:
    assert free_slots(session, [a_student(session).id, 999], now=NOON) == {}


def test_an_instructor_in_an_unknown_zone_has_no_slots_and_leaves_the_others_theirs(
    session: Session,
) -> None:
    lost = a_service(session, instructor=an_instructor(session, time_zone="US/Estern"))
    other = a_service(session)
    found = free_slots(session, [lost.instructor_id, other.instructor_id], now=NOON)
    assert found[lost.instructor_id].starts == {60: []}
    assert found[other.instructor_id].starts[60] != []


def test_windows_of_an_instructor_are_no_others(session: Session) -> None:
    one = a_service(session, instructor=an_instructor(session, windows=[]))
    a_service(session)
    assert starts(session, one.instructor_id) == []
    assert session.scalar(select(func.count(AvailabilityWindow.id))) == 7


def test_the_autumn_day_has_an_hour_more(session: Session) -> None:
    sundays = [WeeklyWindow(6, 0, 1440)]
    instructor = an_instructor(session, time_zone="US/Eastern", windows=sundays)
    a_service(session, instructor=instructor, minutes=15)
    found = starts(session, instructor.id, now=datetime(2026, 10, 30, tzinfo=UTC))
    per_day = {
        day: sum(start.astimezone(ZoneInfo("US/Eastern")).date() == day for start in found)
        for day in (date(2026, 11, 1), date(2026, 11, 8))
    }
    assert per_day == {date(2026, 11, 1): 25 * 4, date(2026, 11, 8): 24 * 4}
