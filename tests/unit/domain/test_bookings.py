from datetime import datetime, timedelta

import pytest

from app.domain.bookings import (
    MAX_LEAD,
    MIN_LEAD,
    BookingStatus,
    LessonBegunError,
    NotOnAMinuteError,
    TooFarAheadError,
    TooSoonError,
    WrongStatusError,
    check_cancellation,
    check_confirmation,
    check_start,
)
from app.domain.errors import PermanentError
from tests.builders import NOON

TICK = timedelta(microseconds=1)


def test_a_lesson_can_be_booked_until_the_shortest_lead_before_it() -> None:
    check_start(NOON, now=NOON - MIN_LEAD)
    with pytest.raises(TooSoonError, match="at least 1 min before"):
        check_start(NOON, now=NOON - MIN_LEAD + TICK)


def test_a_lesson_can_be_booked_from_the_longest_lead_before_it() -> None:
    check_start(NOON, now=NOON - MAX_LEAD)
    with pytest.raises(TooFarAheadError, match="at most 365 days"):
        check_start(NOON, now=NOON - MAX_LEAD - TICK)


@pytest.mark.parametrize("fraction", [timedelta(seconds=1), TICK])
def test_a_lesson_starts_on_a_whole_minute(fraction: timedelta) -> None:
    with pytest.raises(NotOnAMinuteError):
        check_start(NOON + fraction, now=NOON - MAX_LEAD / 2)


def test_a_naive_start_is_no_instant() -> None:
    with pytest.raises(TypeError):
        check_start(datetime(2026, 3, 3), now=NOON)  # noqa: DTZ001 - that is the point


def test_confirming_twice_is_asking_for_nothing() -> None:
    assert check_confirmation(BookingStatus.PENDING, starts_at=NOON, now=NOON - TICK)
    assert not check_confirmation(BookingStatus.CONFIRMED, starts_at=NOON, now=NOON + TICK)


def test_a_lesson_that_has_begun_is_neither_confirmed_nor_cancelled() -> None:
    with pytest.raises(LessonBegunError):
        check_confirmation(BookingStatus.PENDING, starts_at=NOON, now=NOON)
    with pytest.raises(LessonBegunError):
        check_cancellation(BookingStatus.CONFIRMED, starts_at=NOON, now=NOON)


def test_a_pending_lesson_can_be_cancelled_whenever() -> None:
    assert check_cancellation(BookingStatus.PENDING, starts_at=NOON, now=NOON + MAX_LEAD)


@pytest.mark.parametrize(
    ("status", "word"),
    [(BookingStatus.COMPLETED, "completed"), (BookingStatus.NO_SHOW, "a no-show")],
)
def test_a_refusal_says_in_a_sentence_what_the_lesson_is(status: BookingStatus, word: str) -> None:
    with pytest.raises(WrongStatusError, match=f"^A lesson that is {word} cannot be cancelled.$"):
        check_cancellation(status, starts_at=NOON, now=NOON - TICK)
    with pytest.raises(WrongStatusError, match=f"^A lesson that is {word} cannot be confirmed.$"):
        check_confirmation(status, starts_at=NOON, now=NOON - TICK)


def test_a_refusal_is_never_retried() -> None:
    assert issubclass(WrongStatusError, PermanentError)
