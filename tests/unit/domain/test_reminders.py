from datetime import datetime, timedelta

import pytest

from app.domain.email_kinds import EmailKind
from app.domain.reminders import LEADS, due_kind
from tests.builders import NOON as STARTS_AT

TICK = timedelta(microseconds=1)
DAY_BEFORE = STARTS_AT - LEADS[EmailKind.REMINDER_24H]
HOUR_BEFORE = STARTS_AT - LEADS[EmailKind.REMINDER_1H]
LONG_AGO = STARTS_AT - timedelta(days=30)


def due(now: datetime, confirmed_at: datetime | None = LONG_AGO) -> EmailKind | None:
    return due_kind(STARTS_AT, confirmed_at=confirmed_at, now=now)


@pytest.mark.parametrize(
    ("now", "kind"),
    [
        (DAY_BEFORE - TICK, None),
        (DAY_BEFORE, EmailKind.REMINDER_24H),
        (HOUR_BEFORE - TICK, EmailKind.REMINDER_24H),
        (HOUR_BEFORE, EmailKind.REMINDER_1H),
        (STARTS_AT - TICK, EmailKind.REMINDER_1H),
        (STARTS_AT, None),
    ],
)
def test_each_window_begins_with_its_lead_and_ends_where_the_next_one_begins(
    now: datetime, kind: EmailKind | None
) -> None:
    assert due(now) == kind


def test_a_lesson_confirmed_at_the_due_instant_is_still_reminded() -> None:
    assert due(DAY_BEFORE + TICK, confirmed_at=DAY_BEFORE) is EmailKind.REMINDER_24H


def test_a_lesson_confirmed_after_the_due_instant_is_reminded_at_the_next_one() -> None:
    confirmed_at = DAY_BEFORE + TICK
    assert due(HOUR_BEFORE - TICK, confirmed_at=confirmed_at) is None
    assert due(HOUR_BEFORE, confirmed_at=confirmed_at) is EmailKind.REMINDER_1H


def test_a_lesson_that_nobody_confirmed_is_not_reminded() -> None:
    assert due(HOUR_BEFORE, confirmed_at=None) is None
