from datetime import datetime, timedelta

import pytest

from app.domain.bookings import BookingStatus, WrongStatusError
from app.domain.no_shows import (
    CHECK_IN_OPENS,
    GRACE,
    CheckInClosedError,
    CheckInTooEarlyError,
    Side,
    absent,
    check_check_in,
    outcome,
)
from tests.builders import NOON as STARTS_AT

TICK = timedelta(microseconds=1)
ENDS_AT = STARTS_AT + timedelta(hours=1)


def became(
    status: BookingStatus,
    now: datetime,
    *,
    student: datetime | None = None,
    instructor: datetime | None = None,
) -> BookingStatus | None:
    return outcome(
        status,
        starts_at=STARTS_AT,
        ends_at=ENDS_AT,
        student_checked_in_at=student,
        instructor_checked_in_at=instructor,
        now=now,
    )


def check(now: datetime, status: BookingStatus = BookingStatus.CONFIRMED) -> None:
    check_check_in(status, starts_at=STARTS_AT, ends_at=ENDS_AT, now=now)


def test_check_in_opens_a_while_before_the_start() -> None:
    check(STARTS_AT - CHECK_IN_OPENS)
    with pytest.raises(CheckInTooEarlyError, match="Check-in opens 15 min before the lesson"):
        check(STARTS_AT - CHECK_IN_OPENS - TICK)


def test_check_in_closes_a_while_after_the_end() -> None:
    check(ENDS_AT + GRACE - TICK)
    with pytest.raises(CheckInClosedError, match="Check-in closed 15 min after the lesson's end"):
        check(ENDS_AT + GRACE)


def test_who_comes_after_the_lesson_was_marked_is_told_why_it_is_too_late() -> None:
    with pytest.raises(CheckInClosedError, match="marked as a no-show"):
        check(ENDS_AT, BookingStatus.NO_SHOW)


@pytest.mark.parametrize(
    "status", [BookingStatus.PENDING, BookingStatus.CANCELLED, BookingStatus.COMPLETED]
)
def test_nobody_checks_in_to_a_lesson_that_is_not_confirmed(status: BookingStatus) -> None:
    with pytest.raises(WrongStatusError, match=f"that is {status} cannot be checked in to"):
        check(STARTS_AT, status)


def test_a_lesson_to_which_both_came_is_completed_at_its_end() -> None:
    came = {"student": STARTS_AT, "instructor": STARTS_AT}
    assert became(BookingStatus.CONFIRMED, ENDS_AT - TICK, **came) is None
    assert became(BookingStatus.CONFIRMED, ENDS_AT, **came) is BookingStatus.COMPLETED


@pytest.mark.parametrize("came", [{}, {"student": STARTS_AT}, {"instructor": STARTS_AT}])
def test_any_other_is_a_no_show_when_check_in_closes(came: dict[str, datetime]) -> None:
    assert became(BookingStatus.CONFIRMED, ENDS_AT + GRACE - TICK, **came) is None
    assert became(BookingStatus.CONFIRMED, ENDS_AT + GRACE, **came) is BookingStatus.NO_SHOW


def test_a_pending_lesson_expires_at_its_start() -> None:
    assert became(BookingStatus.PENDING, STARTS_AT - TICK) is None
    assert became(BookingStatus.PENDING, STARTS_AT) is BookingStatus.CANCELLED


@pytest.mark.parametrize(
    ("student", "instructor", "expected"),
    [
        (None, None, {Side.STUDENT, Side.INSTRUCTOR}),
        (None, STARTS_AT, {Side.STUDENT}),
        (STARTS_AT, None, {Side.INSTRUCTOR}),
        (STARTS_AT, STARTS_AT, set()),
    ],
)
def test_absent_is_who_did_not_check_in(
    student: datetime | None, instructor: datetime | None, expected: set[Side]
) -> None:
    found = absent(student_checked_in_at=student, instructor_checked_in_at=instructor)
    assert found == expected
