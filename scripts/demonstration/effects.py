"""Whether every module has left in the tables and in Redis what it must, and not only ended well.

Each question is answered a second way: metrics are counted again row by row in Python,
cached slots are computed again for the instant that they name.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, tzinfo

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.adapters.slot_cache import CachedSlots
from app.domain.calendar import day_of
from app.models import (
    Booking,
    BookingStatus,
    Broadcast,
    DailyMetrics,
    Notification,
    NotificationKind,
    Service,
    User,
    UserSession,
)
from app.services import availability
from scripts.demonstration.past import MISSED_TODAY, OPEN_SESSIONS


@dataclass(frozen=True)
class Effects:
    figures: Mapping[str, int] = field(default_factory=dict)
    problems: Sequence[str] = ()


def look(
    session: Session,
    cached: Mapping[int, CachedSlots],
    *,
    yesterday: date,
    zone: tzinfo,
    now: datetime,
) -> Effects:
    """What is there; ``cached`` is read from Redis after everything has drained."""
    no_shows = _lessons(session, BookingStatus.NO_SHOW)
    live = session.scalar(select(func.count()).where(UserSession.expires_at > now)) or 0
    expired = session.scalar(select(func.count()).where(UserSession.expires_at <= now)) or 0
    told = session.scalar(select(func.count()).select_from(Notification)) or 0
    metrics = session.get(DailyMetrics, yesterday)
    figures = {
        "no_shows_marked": no_shows,
        "sessions_left": live,
        "notifications": told,
        "days_counted": session.scalar(select(func.count()).select_from(DailyMetrics)) or 0,
        "instructors_cached": len(cached),
    }

    def problems() -> Iterator[str]:
        if no_shows < MISSED_TODAY:
            yield f"{no_shows} of {MISSED_TODAY} missed lessons are marked as no-shows"
        if expired or live != OPEN_SESSIONS:
            yield f"{expired} expired sessions are left, and {live} of {OPEN_SESSIONS} open ones"
        if metrics is None:
            yield f"there are no metrics of {yesterday}"
        elif (counted := _recount(session, yesterday, zone)) != _stored(metrics):
            yield f"metrics of {yesterday}: {_stored(metrics)}, a recount says {counted}"
        yield from _wrong_slots(session, cached)
        yield from _untold(session)

    return Effects(figures, tuple(problems()))


def _lessons(session: Session, status: BookingStatus) -> int:
    return session.scalar(select(func.count()).where(Booking.status == status)) or 0


def _stored(metrics: DailyMetrics) -> dict[str, int]:
    return {
        "created": metrics.bookings_created,
        "completed": metrics.bookings_completed,
        "cancelled": metrics.bookings_cancelled,
        "revenue": metrics.revenue_cents,
    }


def _recount(session: Session, day: date, zone: tzinfo) -> dict[str, int]:
    def that_day(instant: datetime | None) -> bool:
        return instant is not None and day_of(instant, zone) == day

    rows = list(session.scalars(select(Booking)))
    completed = [row for row in rows if that_day(row.completed_at)]
    return {
        "created": sum(that_day(row.created_at) for row in rows),
        "completed": len(completed),
        "cancelled": sum(that_day(row.cancelled_at) for row in rows),
        "revenue": sum(row.price_cents for row in completed),
    }


def _wrong_slots(session: Session, cached: Mapping[int, CachedSlots]) -> Iterator[str]:
    for instructor_id in session.scalars(select(Service.instructor_id)).all():
        entry = cached.get(instructor_id)
        if entry is None:
            yield f"no slots of instructor {instructor_id} are cached"
            continue
        right = availability.free_slots(session, [instructor_id], now=entry.computed_at)
        if entry.starts != right[instructor_id].starts:
            yield f"the cached slots of instructor {instructor_id} are not those of the tables"


def _untold(session: Session) -> Iterator[str]:
    """Sides of confirmed lessons, and people in a broadcast's audience, without a notification."""
    lessons = select(Booking).where(Booking.status == BookingStatus.CONFIRMED)
    rows = session.scalars(
        select(Notification).where(Notification.kind == NotificationKind.BOOKING_CONFIRMED)
    )
    told = {(row.booking_id, row.user_id) for row in rows}
    for lesson in session.scalars(lessons):
        missing = {(lesson.id, lesson.student_id), (lesson.id, lesson.instructor_id)} - told
        if missing:
            yield f"{len(missing)} sides of lesson {lesson.id} have no notification of it"
    people = session.scalar(select(func.count()).select_from(User)) or 0
    for broadcast in session.scalars(select(Broadcast)):
        reached = session.scalar(
            select(func.count()).where(Notification.key.startswith(f"broadcast:{broadcast.id}:"))
        )
        if reached != people:
            yield f"broadcast {broadcast.id} has reached {reached} of {people} people"
