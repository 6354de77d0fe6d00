"""When a mail that waits has become pointless."""

from datetime import datetime

from app.domain import reminders
from app.domain.bookings import BookingStatus
from app.domain.email_kinds import EmailKind


def is_pointless(
    kind: EmailKind, *, status: BookingStatus, starts_at: datetime, now: datetime
) -> bool:
    """Whether a mail about a lesson would tell its reader nothing, or something wrong.

    ``kind`` is one of ``LESSON_MAILS``.

    A confirmation is sent late rather than never: it is the receipt. A reminder is not.
    """
    if kind is EmailKind.BOOKING_CONFIRMATION:
        return status in {BookingStatus.PENDING, BookingStatus.CANCELLED}
    if kind is EmailKind.BOOKING_CANCELLATION:
        return status is not BookingStatus.CANCELLED
    if kind is EmailKind.NO_SHOW:
        return status is not BookingStatus.NO_SHOW
    return status is not BookingStatus.CONFIRMED or not reminders.is_open(
        kind, starts_at=starts_at, now=now
    )
