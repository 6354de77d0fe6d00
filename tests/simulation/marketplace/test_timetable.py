"""The replay's own reading of the README's table, against the other independent one."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest

from app.tasks.celery_config import BEAT_ENTRIES
from simulations.marketplace.timetable import README, due_instants
from tests.simulation.engine.toys import HOUR

EASTERN = ZoneInfo("US/Eastern")


def of(name: str, day: date) -> list[datetime]:
    start, end = (
        datetime.combine(each, time(), EASTERN).astimezone(UTC)
        for each in (day, day + timedelta(days=1))
    )
    return list(due_instants(README[name], start=start, end=end, zone=EASTERN))


def test_it_has_the_entries_of_the_schedule() -> None:
    assert set(README) == {entry.name for entry in BEAT_ENTRIES}


@pytest.mark.parametrize(
    ("day", "hours"), [(date(2026, 7, 15), 24), (date(2026, 11, 1), 25), (date(2026, 3, 8), 23)]
)
def test_entries_of_every_hour_are_due_in_each_hour_that_there_is(day: date, hours: int) -> None:
    counts = {name: len(of(name, day)) for name in README}
    assert counts == {
        "session-cleanup": hours,
        "booking-reminders": 2 * hours,
        "daily-analytics": 1,
        "notification-cleanup": 1,
        "no-show-check": 4 * hours,
        "availability-cache": 12 * hours,
        "health-check": 60 * hours,
    }


def test_an_hour_that_is_missing_is_made_up_for_at_the_end_of_the_gap() -> None:
    (due,) = of("daily-analytics", date(2026, 3, 8))
    assert due == datetime(2026, 3, 8, 7, tzinfo=UTC)  # 03:00 EDT, the first instant after it
    (next_day,) = of("daily-analytics", date(2026, 3, 9))
    assert next_day - due == 23 * HOUR
