"""When each beat entry is due, read off the README's table and the wall clock, minute by minute.

Written without the code that it checks: no crontab, no arithmetic with local times.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

MINUTE = timedelta(minutes=1)


@dataclass(frozen=True)
class Entry:
    """``hour`` is ``None`` where the entry is due in every hour."""

    minutes: frozenset[int]
    hour: int | None = None


def _every(step: int) -> frozenset[int]:
    return frozenset(range(0, 60, step))


README = {
    "session-cleanup": Entry(frozenset({0})),
    "booking-reminders": Entry(_every(30)),
    "daily-analytics": Entry(frozenset({0}), hour=2),
    "notification-cleanup": Entry(frozenset({0}), hour=3),
    "no-show-check": Entry(_every(15)),
    "availability-cache": Entry(_every(5)),
    "health-check": Entry(_every(1)),
}


def due_instants(
    entry: Entry, *, start: datetime, end: datetime, zone: ZoneInfo
) -> Iterator[datetime]:
    """The instants (UTC) from ``start`` until before ``end``.

    In every hour: whenever the wall clock shows one of the minutes, also for the second time.
    At one hour: once a date, when the clock first shows it, or has jumped over it.
    """
    instant, done = start, None
    while instant < end:
        local = instant.astimezone(zone)
        if entry.hour is None:
            if local.minute in entry.minutes:
                yield instant
        elif local.date() != done:
            wanted = (entry.hour, min(entry.minutes))
            # A day that begins inside the replay; its clock only ever jumps ahead over the hour.
            if (local.hour, local.minute) >= wanted:
                done = local.date()
                yield instant
        instant += MINUTE
