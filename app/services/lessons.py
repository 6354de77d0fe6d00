"""What happens at a lesson: its two sides check in, and in the end it is settled.

Settling works in batches. Each chooses bookings that are due, locks them, and passes over
what somebody else has locked at that moment: a check-in, a cancellation or another run. A
batch that is full plans the next one in its own transaction, so that an outage of any
length is caught up without a long transaction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, select, update
from sqlalchemy.orm import Session

from app import outbox
from app.domain.no_shows import GRACE, NotYourLessonError, Side, check_check_in
from app.models import Booking, BookingStatus, NotificationKind
from app.services import availability
from app.services.bookings import locked
from app.services.notifications import notify_bookings

MARK_NO_SHOWS = "app.tasks.bookings.mark_no_shows"
COMPLETE_FINISHED = "app.tasks.bookings.complete_finished"
EXPIRE_PENDING = "app.tasks.bookings.expire_pending"
SEND_NO_SHOW_NOTICE = "app.tasks.email.send_no_show_notice"

BATCH = 500
"""Lessons in one transaction."""

_BOTH_CHECKED_IN = and_(
    Booking.student_checked_in_at.is_not(None), Booking.instructor_checked_in_at.is_not(None)
)


@dataclass(frozen=True)
class SettledLessons:
    no_shows: int
    completed: int
    expired: int


def check_in(session: Session, booking_id: int, *, user_id: int, now: datetime) -> Booking:
    """Note that one side of a lesson is there; again changes nothing.

    Raises ``BookingRefusedError`` and ``MissingRowError``.
    """
    booking = locked(session, booking_id)
    sides = {booking.student_id: Side.STUDENT, booking.instructor_id: Side.INSTRUCTOR}
    if user_id not in sides:
        raise NotYourLessonError("Only the two sides of a lesson check in to it.")
    column = f"{sides[user_id]}_checked_in_at"
    if getattr(booking, column) is None:
        check_check_in(
            booking.status, starts_at=booking.starts_at, ends_at=booking.ends_at, now=now
        )
        setattr(booking, column, now)
        session.flush()
    return booking


def settle(session: Session, *, now: datetime, batch: int = BATCH) -> SettledLessons:
    """Settle every lesson whose time has come, up to ``batch`` of each kind."""
    return SettledLessons(
        no_shows=mark_no_shows(session, now=now, batch=batch),
        completed=complete_finished(session, now=now, batch=batch),
        expired=expire_pending(session, now=now, batch=batch),
    )


def mark_no_shows(session: Session, *, now: datetime, batch: int = BATCH) -> int:
    """Mark lessons from which somebody was absent, and tell both sides; how many."""
    due = _is_over(now - GRACE) & ~_BOTH_CHECKED_IN
    marked = _become(session, BookingStatus.NO_SHOW, due, batch=batch, no_show_at=now)
    notify_bookings(session, marked, NotificationKind.BOOKING_NO_SHOW, now=now)
    for booking_id in marked:
        outbox.enqueue(session, SEND_NO_SHOW_NOTICE, booking_id, key=f"no-show:{booking_id}")
    if len(marked) == batch:
        outbox.enqueue(session, MARK_NO_SHOWS)
    return len(marked)


def complete_finished(session: Session, *, now: datetime, batch: int = BATCH) -> int:
    """Complete lessons that are over and to which both sides came, and tell them; how many."""
    due = _is_over(now) & _BOTH_CHECKED_IN
    completed = _become(session, BookingStatus.COMPLETED, due, batch=batch, completed_at=now)
    notify_bookings(session, completed, NotificationKind.BOOKING_COMPLETED, now=now)
    if len(completed) == batch:
        outbox.enqueue(session, COMPLETE_FINISHED)
    return len(completed)


def expire_pending(session: Session, *, now: datetime, batch: int = BATCH) -> int:
    """Cancel lessons that begin without having been confirmed, and tell both sides; how many."""
    due = (Booking.status == BookingStatus.PENDING) & (Booking.starts_at <= now)
    expired = _become(session, BookingStatus.CANCELLED, due, batch=batch, cancelled_at=now)
    instructors = session.scalars(
        select(Booking.instructor_id).where(Booking.id.in_(expired)).distinct()
    )
    availability.mark_stale(session, *instructors, now=now)
    notify_bookings(session, expired, NotificationKind.BOOKING_EXPIRED, now=now)
    if len(expired) == batch:
        outbox.enqueue(session, EXPIRE_PENDING)
    return len(expired)


def _is_over(by: datetime) -> ColumnElement[bool]:
    return (
        (Booking.status == BookingStatus.CONFIRMED)
        & (Booking.ends_at <= by)
        # Follows from the line above; but this one has an index.
        & (Booking.starts_at < by)
    )


def _become(
    session: Session,
    status: BookingStatus,
    due: ColumnElement[bool],
    *,
    batch: int,
    **stamp: Any,
) -> Sequence[int]:
    """Give the oldest bookings that are due a new status; their ids."""
    # Locked before they are changed: PostgreSQL looks again at what it locks, and the limit
    # counts what was locked. An UPDATE with this as its subquery may run it more than once.
    chosen = session.scalars(
        select(Booking.id)
        .where(due)
        .order_by(Booking.starts_at, Booking.id)
        .limit(batch)
        .with_for_update(skip_locked=True)
    ).all()
    session.execute(
        update(Booking)
        .where(Booking.id.in_(chosen))
        .values(status=status, **stamp)
        .execution_options(synchronize_session=False)
    )
    return chosen
