"""Booking, confirming and cancelling a lesson; each plans its mails in the same transaction."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app import outbox
from app.domain.availability import Span
from app.domain.bookings import (
    DoubleBookedError,
    OutsideAvailabilityError,
    OwnLessonError,
    check_cancellation,
    check_confirmation,
    check_start,
)
from app.domain.email_kinds import LESSON_MAILS
from app.models import (
    Booking,
    BookingStatus,
    EmailKind,
    EmailMessage,
    EmailState,
    NotificationKind,
    Service,
    User,
)
from app.services import availability
from app.services.errors import MissingRowError
from app.services.notifications import NOTIFY_BOOKING

SEND_CONFIRMATION = "app.tasks.email.send_booking_confirmation"
SEND_CANCELLATION = "app.tasks.email.send_booking_cancellation"

# What the database says when a lesson overlaps another one (see the migrations).
_OVERLAPS = {
    "bookings_instructor_overlap": "The instructor has another lesson at that time.",
    "bookings_student_overlap": "The student has another lesson at that time.",
}


def book(
    session: Session, *, student_id: int, service_id: int, starts_at: datetime, now: datetime
) -> Booking:
    """Book a lesson that waits to be confirmed.

    Raises ``BookingRefusedError``; ``DoubleBookedError`` among them comes from the database
    itself, so two callers cannot both win, and leaves the transaction usable. Raises
    ``MissingRowError`` for an unknown student or service.
    """
    service = session.get(Service, service_id)
    if service is None:
        raise MissingRowError(f"service {service_id}")
    if student_id not in _hold(session, {student_id, service.instructor_id}):
        raise MissingRowError(f"user {student_id}")
    if service.instructor_id == student_id:
        raise OwnLessonError("Nobody books a lesson with themselves.")
    check_start(starts_at, now=now)
    begins = starts_at.astimezone(UTC)
    lesson = Span(begins, begins + timedelta(minutes=service.minutes))
    if not availability.is_available(session, service.instructor_id, lesson):
        raise OutsideAvailabilityError("The instructor does not teach at that time.")
    booking = Booking(
        student_id=student_id,
        instructor_id=service.instructor_id,
        service_id=service.id,
        starts_at=lesson.start,
        ends_at=lesson.end,
        status=BookingStatus.PENDING,
        price_cents=service.price_cents,
        created_at=now,
    )
    try:
        with session.begin_nested():
            session.add(booking)
    except IntegrityError as error:
        for constraint, sentence in _OVERLAPS.items():
            if constraint in str(error.orig):
                raise DoubleBookedError(sentence) from error
        raise
    availability.mark_stale(session, booking.instructor_id, now=now)
    return booking


def confirm(session: Session, booking_id: int, *, now: datetime) -> Booking:
    """Confirm a pending lesson, and let both sides know by mail and in the app; again changes
    nothing.

    Raises ``BookingRefusedError`` and ``MissingRowError``.
    """
    booking = locked(session, booking_id)
    if check_confirmation(booking.status, starts_at=booking.starts_at, now=now):
        booking.status = BookingStatus.CONFIRMED
        booking.confirmed_at = now
        session.flush()
        outbox.enqueue(session, SEND_CONFIRMATION, booking.id, key=_confirmation_key(booking.id))
        _notify(session, booking.id, NotificationKind.BOOKING_CONFIRMED)
    return booking


def cancel(session: Session, booking_id: int, *, now: datetime) -> Booking:
    """Cancel a lesson; again changes nothing.

    Mails about it that have not gone out are cancelled. Both sides are told in the app, and
    by mail where the lesson was confirmed; of a pending one no mail has told them.

    Raises ``BookingRefusedError`` and ``MissingRowError``.
    """
    booking = locked(session, booking_id)
    if check_cancellation(booking.status, starts_at=booking.starts_at, now=now):
        was_confirmed = booking.status is BookingStatus.CONFIRMED
        booking.status = BookingStatus.CANCELLED
        booking.cancelled_at = now
        session.flush()
        availability.mark_stale(session, booking.instructor_id, now=now)
        _notify(session, booking.id, NotificationKind.BOOKING_CANCELLED)
        if was_confirmed:
            _cancel_waiting_mails(session, booking.id)
            outbox.enqueue(session, SEND_CANCELLATION, booking.id, key=f"cancellation:{booking.id}")
    return booking


def _hold(session: Session, user_ids: set[int]) -> set[int]:
    """Keep others from booking with these people until the transaction ends; who exists.

    PostgreSQL looks for an overlap when the row is in. Of two rows that overlap each would
    then wait for the other, and one of the callers would get a deadlock for an answer.
    """
    # Not the strongest lock: rows that refer to these people can be inserted meanwhile.
    people = select(User.id).where(User.id.in_(user_ids)).order_by(User.id)
    return set(session.scalars(people.with_for_update(key_share=True)))


def locked(session: Session, booking_id: int) -> Booking:
    """The booking, which nobody else changes until the transaction ends.

    Raises ``MissingRowError``.
    """
    # Of two callers the second waits here, and then sees what the first one decided.
    booking = session.get(Booking, booking_id, with_for_update=True, populate_existing=True)
    if booking is None:
        raise MissingRowError(f"booking {booking_id}")
    return booking


def _cancel_waiting_mails(session: Session, booking_id: int) -> None:
    # What a worker holds at this moment it may still send; it looks again before it does.
    outbox.cancel(session, key=_confirmation_key(booking_id))
    session.execute(
        update(EmailMessage)
        .where(
            EmailMessage.subject_id == booking_id,
            EmailMessage.kind.in_(LESSON_MAILS - {EmailKind.BOOKING_CANCELLATION}),
            EmailMessage.state == EmailState.QUEUED,
        )
        .values(state=EmailState.CANCELLED)
        .execution_options(synchronize_session=False)
    )


def _notify(session: Session, booking_id: int, kind: NotificationKind) -> None:
    outbox.enqueue(
        session, NOTIFY_BOOKING, booking_id, kind.value, key=f"notify:{kind}:{booking_id}"
    )


def _confirmation_key(booking_id: int) -> str:
    return f"confirmation:{booking_id}"
