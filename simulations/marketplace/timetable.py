"""An oracle: when each beat entry is due, restated from the README and read off the wall clock.

It asks what the clocks show minute by minute: no crontab, no arithmetic with local times. An
entry that the README does not name is taken from ``BEAT_ENTRIES`` and read the same way, so a
new entry needs no line here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from app.tasks.celery_config import BEAT_ENTRIES

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
EVERY_MINUTE = frozenset(range(60))
EVERY_HOUR = frozenset(range(24))
EVERY_DAY = frozenset(range(1, 32))
EVERY_MONTH = frozenset(range(1, 13))
EVERY_WEEKDAY = frozenset(range(7))


@dataclass(frozen=True)
class Entry:
    """What the wall clock must show, and what becomes of due instants that no beat saw."""

    minutes: frozenset[int] = EVERY_MINUTE
    hours: frozenset[int] = EVERY_HOUR
    days: frozenset[int] = EVERY_DAY
    months: frozenset[int] = EVERY_MONTH
    weekdays: frozenset[int] = EVERY_WEEKDAY
    """0 is Sunday."""
    missed: str = "once"

    def matches(self, wall: datetime) -> bool:
        """Whether the entry names this time of the wall clock (naive)."""
        return (
            wall.minute in self.minutes
            and wall.hour in self.hours
            and wall.day in self.days
            and wall.month in self.months
            and wall.isoweekday() % 7 in self.weekdays
        )


def _every(step: int) -> frozenset[int]:
    return frozenset(range(0, 60, step))


README = {
    "session-cleanup": Entry(_every(60)),
    "booking-reminders": Entry(_every(30)),
    "daily-analytics": Entry(_every(60), frozenset({2}), missed="each"),
    "notification-cleanup": Entry(_every(60), frozenset({3})),
    "no-show-check": Entry(_every(15)),
    "availability-cache": Entry(_every(5)),
    "health-check": Entry(missed="skip"),
}


def in_the_code() -> dict[str, Entry]:
    """Every entry of ``BEAT_ENTRIES``, by name."""
    found = {}
    for row in BEAT_ENTRIES:
        fields: Any = row.schedule
        found[row.name] = Entry(
            minutes=frozenset(fields.minute),
            hours=frozenset(fields.hour),
            days=frozenset(fields.day_of_month),
            months=frozenset(fields.month_of_year),
            weekdays=frozenset(fields.day_of_week),
            missed=row.catch_up.value,
        )
    return found


def entries() -> dict[str, Entry]:
    """Every entry by name: as the README has it, else as the code has it."""
    return README | {name: entry for name, entry in in_the_code().items() if name not in README}


def due_instants(
    entry: Entry, *, start: datetime, end: datetime, zone: ZoneInfo
) -> Iterator[datetime]:
    """The instants (UTC) from ``start`` until before ``end``.

    In every hour: whenever the wall clock shows a matching time, also for the second time.
    At given hours: each matching time once, when the clock first shows it or has jumped over it.
    """
    # From a day before: an hour that the clock shows again may have begun before ``start``.
    instant, shown = start - DAY, set[datetime]()
    expected = instant.astimezone(zone).replace(tzinfo=None)
    while instant < end:
        wall = instant.astimezone(zone).replace(tzinfo=None)
        if entry.hours == EVERY_HOUR:
            due = entry.matches(wall)
        else:
            new = set() if wall in shown else {wall}
            while expected < wall:  # the clock jumped over these
                new.add(expected)
                expected += MINUTE
            due = any(map(entry.matches, new))
            shown |= new
            expected = wall + MINUTE
        if due and instant >= start:
            yield instant
        instant += MINUTE
