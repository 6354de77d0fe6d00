from datetime import datetime, timedelta

import pytest

from app.domain.bookings import BookingStatus
from app.domain.email_kinds import EmailKind
from app.domain.emails import is_pointless
from app.domain.reminders import LEADS
from tests.builders import NOON as STARTS_AT

TICK = timedelta(microseconds=1)
DAY_BEFORE = STARTS_AT - LEADS[EmailKind.REMINDER_24H]
HOUR_BEFORE = STARTS_AT - LEADS[EmailKind.REMINDER_1H]


def useful(kind: EmailKind) -> set[BookingStatus]:
    """The states of a lesson in which a mail that is on time says something true."""
    now = HOUR_BEFORE if kind is EmailKind.REMINDER_1H else DAY_BEFORE
    return {
        status
        for status in BookingStatus
        if not is_pointless(kind, status=status, starts_at=STARTS_AT, now=now)
    }


def test_a_cancelled_lesson_is_neither_confirmed_nor_reminded_of() -> None:
    assert useful(EmailKind.BOOKING_CANCELLATION) == {BookingStatus.CANCELLED}
    assert useful(EmailKind.REMINDER_24H) == {BookingStatus.CONFIRMED}
    assert useful(EmailKind.REMINDER_1H) == {BookingStatus.CONFIRMED}


def test_a_no_show_notice_is_about_a_lesson_that_nobody_has_put_right_since() -> None:
    assert useful(EmailKind.NO_SHOW) == {BookingStatus.NO_SHOW}


def test_a_confirmation_is_a_receipt_and_sent_late_rather_than_never() -> None:
    over = {BookingStatus.COMPLETED, BookingStatus.NO_SHOW}
    assert useful(EmailKind.BOOKING_CONFIRMATION) == {BookingStatus.CONFIRMED} | over
    assert not is_pointless(
        EmailKind.BOOKING_CONFIRMATION,
        status=BookingStatus.CONFIRMED,
        starts_at=STARTS_AT,
        now=STARTS_AT + timedelta(days=1),
    )


@pytest.mark.parametrize(
    ("kind", "last"),
    [
        (EmailKind.REMINDER_24H, HOUR_BEFORE - TICK),
        (EmailKind.REMINDER_1H, STARTS_AT - TICK),
    ],
)
def test_a_reminder_that_waited_too_long_is_pointless(kind: EmailKind, last: datetime) -> None:
    def pointless(now: datetime) -> bool:
        return is_pointless(kind, status=BookingStatus.CONFIRMED, starts_at=STARTS_AT, now=now)

    assert not pointless(last)
    assert pointless(last + TICK)
