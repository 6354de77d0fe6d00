"""When instructors teach, and what of it is free."""

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sqlalchemy import Integer, bindparam, delete, select
from sqlalchemy.orm import Session

from app.db import insert_for
from app.domain.availability import (
    DateException,
    Span,
    WeeklyWindow,
    WorkingHours,
    is_open,
    open_spans,
    slots,
    without,
)
from app.domain.bookings import MIN_LEAD, BookingStatus
from app.domain.calendar import DAY, wall_clock
from app.models import (
    AvailabilityException,
    AvailabilityWindow,
    Booking,
    Role,
    Service,
    StaleAvailability,
    User,
)
from app.services.errors import MissingRowError

logger = logging.getLogger(__name__)

DAYS_AHEAD = 14
"""Free slots are those of so many local dates, today's included."""

_asked = bindparam("instructor_ids", expanding=True, type_=Integer)
_ZONES = (
    select(User.id, User.time_zone)
    .where(User.id.in_(_asked), User.role == Role.INSTRUCTOR)
    .order_by(User.id)
)
_WINDOWS = select(
    AvailabilityWindow.instructor_id,
    AvailabilityWindow.weekday,
    AvailabilityWindow.starts_minute,
    AvailabilityWindow.ends_minute,
).where(AvailabilityWindow.instructor_id.in_(_asked))
_EXCEPTIONS = select(
    AvailabilityException.instructor_id,
    AvailabilityException.date,
    AvailabilityException.change,
    AvailabilityException.starts_minute,
    AvailabilityException.ends_minute,
).where(
    AvailabilityException.instructor_id.in_(_asked),
    AvailabilityException.date.between(bindparam("first"), bindparam("last")),
)


@dataclass(frozen=True)
class FreeSlots:
    time_zone: str
    starts: Mapping[int, Sequence[datetime]]
    """In UTC and in order, by the minutes of each lesson that the instructor offers."""


def set_weekly_windows(
    session: Session, instructor_id: int, windows: Iterable[WeeklyWindow], *, now: datetime
) -> None:
    """Put ``windows`` in the place of those that were; lessons that are booked stay.

    Raises ``MissingRowError`` for an unknown instructor.
    """
    _check_instructor(session, instructor_id)
    # First, for it makes a second caller wait: else the windows of both would be left.
    mark_stale(session, instructor_id, now=now)
    session.execute(
        delete(AvailabilityWindow).where(AvailabilityWindow.instructor_id == instructor_id)
    )
    session.add_all(
        AvailabilityWindow(instructor_id=instructor_id, **asdict(window)) for window in windows
    )
    session.flush()


def add_exception(
    session: Session, instructor_id: int, exception: DateException, *, now: datetime
) -> int:
    """Add a blocked or extra span of one date; its id. Lessons that are booked stay.

    Raises ``MissingRowError`` for an unknown instructor.
    """
    _check_instructor(session, instructor_id)
    row = AvailabilityException(instructor_id=instructor_id, **asdict(exception))
    session.add(row)
    session.flush()
    mark_stale(session, instructor_id, now=now)
    return row.id


def mark_stale(session: Session, *instructor_ids: int, now: datetime) -> None:
    """Note, in the transaction of a change, that these instructors' cached slots are old.

    For several instructors call it once: in this order no two transactions wait for each
    other.
    """
    if not instructor_ids:
        return
    insert = insert_for(session)(StaleAvailability)
    session.execute(
        insert.on_conflict_do_update(
            index_elements=[StaleAvailability.instructor_id],
            set_={
                "changes": StaleAvailability.changes + 1,
                "changed_at": insert.excluded.changed_at,
            },
        ),
        [
            {"instructor_id": each, "changes": 1, "cached_changes": 0, "changed_at": now}
            for each in sorted(set(instructor_ids))
        ],
    )


def is_available(session: Session, instructor_id: int, lesson: Span) -> bool:
    """Whether the instructor teaches during the whole of ``lesson``; bookings are not looked at."""
    hours = _working_hours(
        session, [instructor_id], lesson.start.date() - DAY, lesson.end.date() + DAY
    )
    return instructor_id in hours and is_open(hours[instructor_id], lesson)


def free_slots(
    session: Session, instructor_ids: Collection[int], *, now: datetime
) -> dict[int, FreeSlots]:
    """What can be booked with each instructor, from now to the end of the horizon.

    In as many statements for one instructor as for many. Ids of others are left out.
    """
    today = now.astimezone(UTC).date()
    # In no zone is it another date than yesterday's, today's or tomorrow's.
    until = today + (DAYS_AHEAD + 1) * DAY
    all_hours = _working_hours(session, instructor_ids, today - DAY, until)
    lengths = _lengths_offered(session, instructor_ids)
    too_soon = Span(now - 2 * DAY, now + MIN_LEAD)
    taken = _booked(session, instructor_ids, after=now, before=now + (DAYS_AHEAD + 2) * DAY)
    found = {}
    for instructor_id, hours in all_hours.items():
        first = wall_clock(now, hours.zone).date()
        spans = open_spans(hours, first, first + (DAYS_AHEAD - 1) * DAY)
        free = without(spans, [too_soon, *taken[instructor_id]])
        found[instructor_id] = FreeSlots(
            time_zone=str(hours.zone),
            starts={
                minutes: _starts(free, hours.zone, minutes) for minutes in lengths[instructor_id]
            },
        )
    return found


def _starts(free: Sequence[Span], zone: tzinfo, minutes: int) -> list[datetime]:
    return [slot.start for slot in slots(free, zone, length=timedelta(minutes=minutes))]


def _check_instructor(session: Session, instructor_id: int) -> None:
    instructor = select(User.id).where(User.id == instructor_id, User.role == Role.INSTRUCTOR)
    if session.scalar(instructor) is None:
        raise MissingRowError(f"instructor {instructor_id}")


def _working_hours(
    session: Session, instructor_ids: Collection[int], first: date, last: date
) -> dict[int, WorkingHours]:
    """Working hours with the exceptions of the local dates ``first`` to ``last``."""
    asked = {"instructor_ids": list(instructor_ids)}
    zones = session.execute(_ZONES, asked).all()
    windows = defaultdict(list)
    for instructor_id, *window in session.execute(_WINDOWS, asked):
        windows[instructor_id].append(WeeklyWindow(*window))
    exceptions = defaultdict(list)
    for instructor_id, day, change, starts_minute, ends_minute in session.execute(
        _EXCEPTIONS, asked | {"first": first, "last": last}
    ):
        exceptions[instructor_id].append(DateException(day, change, starts_minute, ends_minute))
    return {
        each: WorkingHours(zone, windows[each], exceptions[each])
        if (zone := _zone(each, name)) is not None
        else WorkingHours(UTC, (), ())
        for each, name in zones
    }


def _zone(instructor_id: int, name: str) -> tzinfo | None:
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, ZoneInfoNotFoundError):
        # One wrong row must not keep the other instructors' slots from being refreshed.
        logger.warning("user %s has an unknown time zone: no free slots", instructor_id)
        return None


def _lengths_offered(session: Session, instructor_ids: Collection[int]) -> dict[int, list[int]]:
    lengths = defaultdict(list)
    for instructor_id, minutes in session.execute(
        select(Service.instructor_id, Service.minutes)
        .where(Service.instructor_id.in_(instructor_ids))
        .distinct()
        .order_by(Service.instructor_id, Service.minutes)
    ):
        lengths[instructor_id].append(minutes)
    return lengths


def _booked(
    session: Session, instructor_ids: Collection[int], *, after: datetime, before: datetime
) -> dict[int, list[Span]]:
    """What the database would refuse to book again."""
    booked = defaultdict(list)
    for instructor_id, starts_at, ends_at in session.execute(
        select(Booking.instructor_id, Booking.starts_at, Booking.ends_at).where(
            Booking.instructor_id.in_(instructor_ids),
            Booking.status != BookingStatus.CANCELLED,
            Booking.starts_at < before,
            Booking.ends_at > after,
        )
    ):
        booked[instructor_id].append(Span(starts_at, ends_at))
    return booked
