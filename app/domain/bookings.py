"""When a lesson may be booked, confirmed and cancelled."""

from datetime import datetime, timedelta
from enum import StrEnum

from app.domain.errors import PermanentError

MIN_LEAD = timedelta(minutes=1)
"""A lesson is booked at least this long before it begins."""
MAX_LEAD = timedelta(days=365)
"""And at most this long: calendars beyond are not planned."""


class BookingStatus(StrEnum):
    PENDING = "pending"
    CONFIRMED = "confirmed"
    CANCELLED = "cancelled"
    COMPLETED = "completed"
    NO_SHOW = "no_show"


class BookingRefusedError(PermanentError):
    """The marketplace does not allow it; the message is one sentence for the person who asked."""


class NotOnAMinuteError(BookingRefusedError):
    pass


class TooSoonError(BookingRefusedError):
    pass


class TooFarAheadError(BookingRefusedError):
    pass


class OwnLessonError(BookingRefusedError):
    pass


class OutsideAvailabilityError(BookingRefusedError):
    pass


class DoubleBookedError(BookingRefusedError):
    pass


class WrongStatusError(BookingRefusedError):
    pass


class LessonBegunError(BookingRefusedError):
    pass


def check_start(starts_at: datetime, *, now: datetime) -> None:
    """Refuse a start that is not on a whole minute, too soon or too far ahead."""
    if starts_at.second or starts_at.microsecond:
        raise NotOnAMinuteError("A lesson starts on a whole minute.")
    if starts_at - now < MIN_LEAD:
        raise TooSoonError(
            f"A lesson is booked at least {MIN_LEAD // timedelta(minutes=1)} min before it starts."
        )
    if starts_at - now > MAX_LEAD:
        raise TooFarAheadError(f"A lesson is booked at most {MAX_LEAD.days} days ahead.")


def check_confirmation(status: BookingStatus, *, starts_at: datetime, now: datetime) -> bool:
    """Whether there is anything to confirm: not where it is confirmed already.

    Refuses what is cancelled or over, and a lesson that has begun.
    """
    if status is BookingStatus.CONFIRMED:
        return False
    if status is not BookingStatus.PENDING:
        raise WrongStatusError(f"A lesson that is {_spoken(status)} cannot be confirmed.")
    if now >= starts_at:
        raise LessonBegunError("A lesson that has begun cannot be confirmed.")
    return True


def check_cancellation(status: BookingStatus, *, starts_at: datetime, now: datetime) -> bool:
    """Whether there is anything to cancel: not where it is cancelled already.

    Refuses what is over, and a confirmed lesson that has begun. A pending one can always
    be cancelled: nobody relies on it.
    """
    if status is BookingStatus.CANCELLED:
        return False
    if status not in {BookingStatus.PENDING, BookingStatus.CONFIRMED}:
        raise WrongStatusError(f"A lesson that is {_spoken(status)} cannot be cancelled.")
    if status is BookingStatus.CONFIRMED and now >= starts_at:
        raise LessonBegunError("A confirmed lesson that has begun cannot be cancelled.")
    return True


def _spoken(status: BookingStatus) -> str:
    return "a no-show" if status is BookingStatus.NO_SHOW else status.value
