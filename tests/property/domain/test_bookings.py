"""When a lesson may be booked."""

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis.strategies import integers, sampled_from, timedeltas

from app.domain.bookings import (
    MAX_LEAD,
    MIN_LEAD,
    BookingRefusedError,
    BookingStatus,
    NotOnAMinuteError,
    check_cancellation,
    check_confirmation,
    check_start,
)
from tests.builders import NOON

TICK = timedelta(microseconds=1)
MINUTE = timedelta(minutes=1)

minutes = integers(-10_000_000, 10_000_000).map(lambda number: NOON + number * MINUTE)
statuses = sampled_from(BookingStatus)


@given(starts_at=minutes, lead=timedeltas(MIN_LEAD, MAX_LEAD))
def test_any_whole_minute_between_the_leads_can_be_booked(
    starts_at: datetime, lead: timedelta
) -> None:
    check_start(starts_at, now=starts_at - lead)


@given(starts_at=minutes, lead=timedeltas(timedelta(days=-1_000), timedelta(days=1_000)))
def test_nothing_else_can(starts_at: datetime, lead: timedelta) -> None:
    allowed = MIN_LEAD <= lead <= MAX_LEAD
    try:
        check_start(starts_at, now=starts_at - lead)
    except BookingRefusedError:
        assert not allowed
    else:
        assert allowed


@given(starts_at=minutes, fraction=timedeltas(TICK, MINUTE - TICK))
def test_a_start_between_two_minutes_is_refused(starts_at: datetime, fraction: timedelta) -> None:
    with pytest.raises(NotOnAMinuteError):
        check_start(starts_at + fraction, now=starts_at - MAX_LEAD / 2)


@given(status=statuses, starts_at=minutes, until=timedeltas(-MINUTE, MINUTE))
def test_who_confirms_changes_a_pending_lesson_that_has_not_begun_and_nothing_else(
    status: BookingStatus, starts_at: datetime, until: timedelta
) -> None:
    now = starts_at - until
    try:
        changes = check_confirmation(status, starts_at=starts_at, now=now)
    except BookingRefusedError:
        changes = False
    assert changes == (status is BookingStatus.PENDING and now < starts_at)


@given(status=statuses, starts_at=minutes, until=timedeltas(-MINUTE, MINUTE))
def test_who_cancels_changes_a_pending_lesson_or_a_confirmed_one_that_has_not_begun(
    status: BookingStatus, starts_at: datetime, until: timedelta
) -> None:
    now = starts_at - until
    try:
        changes = check_cancellation(status, starts_at=starts_at, now=now)
    except BookingRefusedError:
        changes = False
    confirmed_in_time = status is BookingStatus.CONFIRMED and now < starts_at
    assert changes == (status is BookingStatus.PENDING or confirmed_in_time)
