"""The oracle of the schedule, compared with the table in the code."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest

from app.outbox.schedule import CatchUp
from app.tasks.celery_config import BEAT_ENTRIES, Periodic
from app.tasks.schedules import crontab
from simulations.marketplace import timetable
from simulations.marketplace.timetable import README, due_instants, entries, in_the_code
from tests.simulation.engine.toys import HOUR

EASTERN = ZoneInfo("US/Eastern")


def of(name: str, day: date) -> list[datetime]:
    start, end = (
        datetime.combine(each, time(), EASTERN).astimezone(UTC)
        for each in (day, day + timedelta(days=1))
    )
    return list(due_instants(entries()[name], start=start, end=end, zone=EASTERN))


def test_the_code_keeps_the_entries_of_the_readme() -> None:
    found = in_the_code()
    changed = [name for name, entry in README.items() if found.get(name) != entry]
    assert changed == [], (
        f"BEAT_ENTRIES in app/tasks/celery_config.py differs for {changed}: change README in "
        "simulations/marketplace/timetable.py and the table under Queues in README.md as well"
    )


def test_an_entry_that_the_readme_does_not_name_is_read_off_the_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mondays = Periodic(
        "mondays", "app.tasks.x.y", crontab(minute=30, hour="2,5", day_of_week=1), CatchUp.EACH
    )
    monkeypatch.setattr(timetable, "BEAT_ENTRIES", (*BEAT_ENTRIES, mondays))
    assert entries().keys() >= {*README, "mondays"}
    assert entries()["mondays"].missed == "each"
    monday, tuesday = date(2026, 7, 13), date(2026, 7, 14)
    hours = [each.astimezone(EASTERN).strftime("%H:%M") for each in of("mondays", monday)]
    assert hours == ["02:30", "05:30"]
    assert of("mondays", tuesday) == []


def test_a_given_hour_that_is_shown_twice_is_due_when_it_is_shown_first() -> None:
    entry = timetable.Entry(frozenset({30}), frozenset({1}))
    start = datetime(2026, 11, 1, 4, tzinfo=UTC)
    due = list(due_instants(entry, start=start, end=start + 24 * HOUR, zone=EASTERN))
    assert due == [datetime(2026, 11, 1, 5, 30, tzinfo=UTC)]
    between = datetime(2026, 11, 1, 6, tzinfo=UTC)  # the clock has just been put back
    assert list(due_instants(entry, start=between, end=between + HOUR, zone=EASTERN)) == []


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
