"""When an instructor teaches, and the slots that are free then.

Working hours are times of the instructor's wall clock, and an instant is inside them if
that clock shows such a time at that instant. So an hour that the clocks show twice is
inside both times: a window from 1:00 to 2:00 is two hours long on that day. One that they
leave out is never inside.
"""

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from enum import StrEnum
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from app.domain.calendar import DAY, MINUTE, next_change, wall_clock
from app.domain.errors import PermanentError

SLOT_STEP = timedelta(minutes=15)
"""Slots start on the quarter hours of the wall clock: what people say, and with no time lost
between lessons of 30, 45 and 60 minutes."""
MINUTES_OF_A_DAY = DAY // MINUTE
DAYS_OF_A_WEEK = 7


class AvailabilityChange(StrEnum):
    BLOCKED = "blocked"
    EXTRA = "extra"


class WrongHoursError(PermanentError, ValueError):
    """A window or exception that cannot be; the message says what it must be."""


class Span(NamedTuple):
    """From ``start`` until before ``end``."""

    start: datetime
    end: datetime


@dataclass(frozen=True)
class WeeklyWindow:
    """A span of every week."""

    weekday: int
    """0 is Monday."""
    starts_minute: int
    """Minutes after midnight on the wall clock."""
    ends_minute: int
    """As ``starts_minute``; 1440 is the end of the day."""

    def __post_init__(self) -> None:
        if not 0 <= self.weekday < DAYS_OF_A_WEEK:
            raise WrongHoursError(f"weekday {self.weekday}: use 0 (Monday) to 6 (Sunday)")
        _check_minutes(self.starts_minute, self.ends_minute)


@dataclass(frozen=True)
class DateException:
    """A span of one date, to teach or not to teach against the weekly windows."""

    date: dt.date
    change: AvailabilityChange
    """Where both are said of the same time, it is blocked."""
    starts_minute: int
    ends_minute: int

    def __post_init__(self) -> None:
        _check_minutes(self.starts_minute, self.ends_minute)


def _check_minutes(start: int, end: int) -> None:
    if not 0 <= start < end <= MINUTES_OF_A_DAY:
        raise WrongHoursError(
            f"from minute {start} to minute {end}: use minutes after midnight, "
            f"from 0 to {MINUTES_OF_A_DAY}, the end after the start"
        )


@dataclass(frozen=True)
class WorkingHours:
    """All times at which an instructor teaches."""

    zone: tzinfo
    windows: Sequence[WeeklyWindow]
    exceptions: Sequence[DateException]


def is_open(hours: WorkingHours, lesson: Span) -> bool:
    """Whether the whole of ``lesson`` (aware) lies inside the working hours."""
    first, last = (wall_clock(instant, hours.zone).date() for instant in lesson)
    return any(
        span.start <= lesson.start and lesson.end <= span.end
        for span in open_spans(hours, first, last)
    )


def open_spans(hours: WorkingHours, first: date, last: date) -> list[Span]:
    """The working hours on the local dates ``first`` to ``last``, in UTC and in order.

    Spans that touch are one, also over midnight.
    """
    walls = _wall_spans(hours, first, last)
    return _merged(
        Span(max(start, stretch.start), min(end, stretch.end))
        for stretch in _stretches(hours.zone, first, last)
        for start, end in (map(stretch.instant, wall) for wall in walls)
        if start < stretch.end and end > stretch.start
    )


def free_slots(
    hours: WorkingHours,
    taken: Iterable[Span],
    first: date,
    last: date,
    *,
    length: timedelta,
    step: timedelta = SLOT_STEP,
) -> list[Span]:
    """All slots of ``length`` in the working hours of the local dates, in UTC and in order.

    They start where the time since midnight on the wall clock is a multiple of ``step``,
    and overlap nothing that is ``taken`` (aware). Raises ``ValueError`` for a step that
    does not divide a day.
    """
    free = without(open_spans(hours, first, last), taken)
    return slots(free, hours.zone, length=length, step=step)


def without(spans: Iterable[Span], taken: Iterable[Span]) -> list[Span]:
    """What of ``spans``, which are in order and do not overlap, is not ``taken``."""
    holes = _merged(taken)
    left = []
    passed = 0
    for start, end in spans:
        while passed < len(holes) and holes[passed].end <= start:
            passed += 1
        for hole in islice(holes, passed, None):
            if hole.start >= end:
                break
            if start < hole.start:
                left.append(Span(start, hole.start))
            start = hole.end
        if start < end:
            left.append(Span(start, end))
    return left


def slots(
    free: Sequence[Span], zone: tzinfo, *, length: timedelta, step: timedelta = SLOT_STEP
) -> list[Span]:
    """As ``free_slots``, in spans that are known to be free."""
    if step <= timedelta(0) or DAY % step:
        raise ValueError(f"a step of {step} does not divide a day")
    if not free:
        return []
    stretches = _stretches(zone, free[0].start.date(), free[-1].end.date())
    return [
        Span(start, start + length)
        for span in free
        for stretch in stretches
        for start in _starts(span, stretch, length=length, step=step)
    ]


class _Stretch(NamedTuple):
    """A time during which the clocks of a zone run on."""

    start: datetime
    end: datetime
    offset: timedelta

    def instant(self, wall: datetime) -> datetime:
        return (wall - self.offset).replace(tzinfo=UTC)

    def wall(self, instant: datetime) -> datetime:
        return instant.replace(tzinfo=None) + self.offset


# Many instructors live in few zones.
@lru_cache(maxsize=1024)
def _stretches(zone: tzinfo, first: date, last: date) -> tuple[_Stretch, ...]:
    """The stretches of at least the local dates ``first`` to ``last``, in order."""
    # No zone is a day off UTC.
    start = datetime.combine(first, time(), UTC) - DAY
    until = datetime.combine(last, time(), UTC) + 2 * DAY
    found = []
    while start < until:
        end = next_change(zone, start, until) or until
        found.append(_Stretch(start, end, wall_clock(start, zone) - start.replace(tzinfo=None)))
        start = end
    return tuple(found)


def _wall_spans(hours: WorkingHours, first: date, last: date) -> list[Span]:
    """The working hours as the wall clock shows them; naive."""
    days = [first + n * DAY for n in range((last - first).days + 1)]
    weekly = [
        _on(day, window)
        for day in days
        for window in hours.windows
        if window.weekday == day.weekday()
    ]
    changes: dict[AvailabilityChange, list[Span]] = {change: [] for change in AvailabilityChange}
    for exception in hours.exceptions:
        if first <= exception.date <= last:
            changes[exception.change].append(_on(exception.date, exception))
    teaches = _merged([*weekly, *changes[AvailabilityChange.EXTRA]])
    return without(teaches, changes[AvailabilityChange.BLOCKED])


def _on(day: date, hours: WeeklyWindow | DateException) -> Span:
    midnight = datetime.combine(day, time())
    return Span(midnight + hours.starts_minute * MINUTE, midnight + hours.ends_minute * MINUTE)


def _starts(
    span: Span, stretch: _Stretch, *, length: timedelta, step: timedelta
) -> Iterator[datetime]:
    start = _on_grid(max(span.start, stretch.start), stretch, step=step)
    last = span.end - length
    while start < stretch.end and start <= last:
        yield start
        start += step


def _on_grid(instant: datetime, stretch: _Stretch, *, step: timedelta) -> datetime:
    """The first instant from ``instant`` on that the wall clock shows as a multiple of ``step``."""
    wall = stretch.wall(instant)
    since_midnight = wall - datetime.combine(wall.date(), time())
    return instant + -since_midnight % step


def _merged(spans: Iterable[Span]) -> list[Span]:
    """In order, and spans that overlap or touch as one."""
    merged: list[Span] = []
    for span in sorted(spans):
        if merged and span.start <= merged[-1].end:
            merged[-1] = Span(merged[-1].start, max(merged[-1].end, span.end))
        else:
            merged.append(span)
    return merged
