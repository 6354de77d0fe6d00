"""Wall-clock times of a calendar, and the instants at which a zone's clocks show them.

Instants are computed in UTC and shown in the zone, never the other way round: what a
wall clock shows twice cannot be told from the wall clock alone (``datetime.fold`` tries,
but a copy easily loses it).
"""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo

DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)
LAST_MOMENT = timedelta(microseconds=1)
HOURS_OF_A_DAY = 24


@dataclass(frozen=True)
class WallTimes:
    """The wall-clock times, to the minute, that a crontab's five fields match; all must."""

    minutes: tuple[int, ...]
    """Ascending, like ``hours``; neither is empty."""
    hours: tuple[int, ...]
    days_of_month: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    """0 is Sunday."""

    @property
    def every_hour(self) -> bool:
        return len(self.hours) == HOURS_OF_A_DAY

    def first_from(self, wall: datetime) -> datetime:
        """The first of them that is not before ``wall``; both naive.

        Raises ``OverflowError`` where there is none before the end of the calendar.
        """
        if wall.second or wall.microsecond:
            wall = wall.replace(second=0, microsecond=0) + MINUTE
        day = wall.date()
        if self._on(day) and (later := self._time_from(wall.hour, wall.minute)) is not None:
            return datetime.combine(day, later)
        return datetime.combine(self._day_after(day), time(self.hours[0], self.minutes[0]))

    def _on(self, day: date) -> bool:
        return (
            day.month in self.months
            and day.day in self.days_of_month
            and day.isoweekday() % 7 in self.weekdays
        )

    def _time_from(self, hour: int, minute: int) -> time | None:
        if hour in self.hours and minute <= self.minutes[-1]:
            return time(hour, self.minutes[bisect_left(self.minutes, minute)])
        later = bisect_right(self.hours, hour)
        return time(self.hours[later], self.minutes[0]) if later < len(self.hours) else None

    def _day_after(self, day: date) -> date:
        day += DAY
        while not self._on(day):
            if day.month in self.months:
                day += DAY
            else:
                day = (day.replace(day=28) + 4 * DAY).replace(day=1)
        return day


def next_instant(times: WallTimes, zone: tzinfo, after: datetime) -> datetime:
    """The first instant after ``after`` (aware) at which ``times`` are due in ``zone``; in UTC.

    With every hour of the day, each instant at which the clocks show one of the times: in
    an hour that they show twice also the second time, in one that they leave out never.

    With some hours only, each of the times once: at the first instant that shows it, or,
    where the clocks leave it out, as soon as they have been put forward. Several that are
    left out together are due together.
    """
    start = after.astimezone(UTC) + LAST_MOMENT
    if times.every_hour:
        return _next_shown(times, zone, start)
    return _next_once(times, zone, start)


def _next_shown(times: WallTimes, zone: tzinfo, start: datetime) -> datetime:
    while True:
        wall = wall_clock(start, zone)
        # Right while the clocks run on; where they are changed before, look again from there.
        due = start + (times.first_from(wall) - wall)
        change = next_change(zone, start, due)
        if change is None:
            return due
        start = change


def _next_once(times: WallTimes, zone: tzinfo, start: datetime) -> datetime:
    wall = times.first_from(wall_clock(start, zone))
    # More than once round only in the second pass of a repeated hour.
    while (due := first_shown(wall, zone)) < start:
        wall = times.first_from(wall + MINUTE)
    return due


def wall_clock(instant: datetime, zone: tzinfo) -> datetime:
    """What the clocks of ``zone`` show at ``instant`` (aware); naive."""
    return instant.astimezone(zone).replace(tzinfo=None)


def first_shown(wall: datetime, zone: tzinfo) -> datetime:
    """The first instant at which the clocks of ``zone`` show ``wall`` (naive); in UTC.

    Where they leave it out, the instant at which they are put forward over it.
    """
    instant = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    left_out = wall_clock(instant, zone) - wall
    if not left_out:
        return instant
    # PEP 495: fold=0 is read by the clocks before the change, fold=1 by those after it.
    change = next_change(zone, instant - left_out, instant)
    if change is None:
        raise ValueError(f"{zone} shows no {wall} and leaves it not out")
    return change


def next_change(zone: tzinfo, start: datetime, until: datetime) -> datetime | None:
    """The first instant after ``start`` up to ``until`` at which the clocks of ``zone`` are
    changed, to the second; ``None`` where they are not. All in UTC.

    Changes that cancel each other within a day are not seen; no zone has them.
    """
    offset = _offset(start, zone)
    while start < until:
        later = min(start + DAY, until)
        if _offset(later, zone) != offset:
            return _change_between(zone, start, later)
        start = later
    return None


def _change_between(zone: tzinfo, start: datetime, until: datetime) -> datetime:
    offset = _offset(start, zone)
    low = start.replace(microsecond=0)
    seconds = -((low - until) // SECOND)
    first = bisect_left(
        range(seconds), True, key=lambda passed: _offset(low + passed * SECOND, zone) != offset
    )
    return low + first * SECOND


def _offset(instant: datetime, zone: tzinfo) -> timedelta:
    """How far the clocks are ahead of UTC, by what they show: ``utcoffset`` needs the fold."""
    return wall_clock(instant, zone) - instant.replace(tzinfo=None)


def day_start(day: date, zone: tzinfo) -> datetime:
    """The instant at which ``day`` begins in ``zone``; in UTC.

    When the clocks first show its midnight; where they leave that out, when they are put
    forward over it. So days follow each other without a gap, also where the clocks are put
    back from one day into the one before.
    """
    return first_shown(datetime.combine(day, time()), zone)


def day_span(day: date, zone: tzinfo) -> tuple[datetime, datetime]:
    """From when until before when it is ``day`` in ``zone``; in UTC.

    23 or 25 hours where the clocks are changed; none for a day that a zone left out.
    """
    return day_start(day, zone), day_start(day + DAY, zone)


def day_of(instant: datetime, zone: tzinfo) -> date:
    """The day of ``zone`` whose span holds ``instant`` (aware)."""
    day = wall_clock(instant, zone).date()
    # Put back over a midnight, the clocks show the day before once more.
    while day_start(day + DAY, zone) <= instant:
        day += DAY
    return day
