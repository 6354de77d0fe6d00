"""What becomes of a lesson when its time has come, by who checked in to it.

A lesson to which both sides checked in is completed at its end. Any other is a no-show
when check-in closes, ``GRACE`` after the end, and not earlier: who taught for an hour may
have forgotten the button until then, and a lesson that took place is no no-show. Since a
check-in is refused from the very instant at which a no-show may be marked, the outcome
does not depend on when, or how late, somebody looks.

A lesson that nobody confirmed before its start is cancelled then.
"""

from datetime import datetime, timedelta
from enum import StrEnum

from app.domain.bookings import BookingRefusedError, BookingStatus, WrongStatusError

CHECK_IN_OPENS = timedelta(minutes=15)
"""How long before the start of a lesson its two sides can begin to check in."""
GRACE = timedelta(minutes=15)
"""How long after its end they still can."""

_MINUTE = timedelta(minutes=1)


class Side(StrEnum):
    STUDENT = "student"
    INSTRUCTOR = "instructor"


class NotYourLessonError(BookingRefusedError):
    pass


class CheckInTooEarlyError(BookingRefusedError):
    pass


class CheckInClosedError(BookingRefusedError):
    pass


def check_check_in(
    status: BookingStatus, *, starts_at: datetime, ends_at: datetime, now: datetime
) -> None:
    """Refuse a check-in that is too early or too late, or to a lesson that is not confirmed."""
    if status is BookingStatus.NO_SHOW:
        raise CheckInClosedError(
            f"Check-in closed {GRACE // _MINUTE} min after the lesson's end, "
            "and the lesson is marked as a no-show."
        )
    if status is not BookingStatus.CONFIRMED:
        raise WrongStatusError(f"A lesson that is {status.value} cannot be checked in to.")
    if now < starts_at - CHECK_IN_OPENS:
        raise CheckInTooEarlyError(
            f"Check-in opens {CHECK_IN_OPENS // _MINUTE} min before the lesson starts."
        )
    if now >= ends_at + GRACE:
        raise CheckInClosedError(f"Check-in closed {GRACE // _MINUTE} min after the lesson's end.")


def absent(
    *, student_checked_in_at: datetime | None, instructor_checked_in_at: datetime | None
) -> frozenset[Side]:
    """Who did not check in: nobody, one of the sides or both."""
    check_ins = {Side.STUDENT: student_checked_in_at, Side.INSTRUCTOR: instructor_checked_in_at}
    return frozenset(side for side, at in check_ins.items() if at is None)


def outcome(
    status: BookingStatus,
    *,
    starts_at: datetime,
    ends_at: datetime,
    student_checked_in_at: datetime | None,
    instructor_checked_in_at: datetime | None,
    now: datetime,
) -> BookingStatus | None:
    """What a lesson has become by ``now``; ``None`` where it stays what it is."""
    if status is BookingStatus.PENDING:
        return BookingStatus.CANCELLED if now >= starts_at else None
    if status is not BookingStatus.CONFIRMED:
        return None
    if not absent(
        student_checked_in_at=student_checked_in_at,
        instructor_checked_in_at=instructor_checked_in_at,
    ):
        return BookingStatus.COMPLETED if now >= ends_at else None
    return BookingStatus.NO_SHOW if now >= ends_at + GRACE else None
