"""One axis of local time under a whole run, also over days on which the clocks change."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any
from zoneinfo import ZoneInfo

MOST_BINS = 400
WIDTHS = tuple(
    timedelta(minutes=each) for each in (1, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880)
)
QUARTER = timedelta(minutes=15)
DAY = 1440
TICK_STEPS = (15, 30, 60, 120, 180, 360, 720, DAY, 2 * DAY, 7 * DAY, 14 * DAY, 30 * DAY, 60 * DAY)
"""Minutes."""
MOST_TICKS = 800
MARKS_CHANGES = 180
"""Up to this step the instant at which the clocks change has a tick of its own."""


@dataclass(frozen=True)
class Change:
    """An instant at which the clocks change, and what that does to the axis."""

    at: datetime
    what: str


@dataclass(frozen=True)
class LocalAxis:
    """Cuts the span from ``start`` to ``end`` (aware) into bins of one width, at most 400.

    The axis is even in time that passes, and labelled by the wall clock of ``zone``: an hour
    that comes twice is there twice, one that is missing is not there.
    """

    start: datetime
    end: datetime
    zone: ZoneInfo

    @cached_property
    def width(self) -> timedelta:
        span = self.end - self.start
        for width in WIDTHS:
            if span <= width * MOST_BINS:
                return width
        return -(-span // MOST_BINS)

    @cached_property
    def bins(self) -> int:
        return max(1, -(-(self.end - self.start) // self.width))

    def place(self, instant: datetime) -> float:
        """Where ``instant`` is on the axis, in bins from its start."""
        return round((instant - self.start) / self.width, 4)

    def label(self, instant: datetime) -> str:
        """The wall clock, with the zone's name where that is not the same all the time."""
        local = instant.astimezone(self.zone)
        seconds = ":%S" if local.second else ""
        name = " %Z" if self.changes else ""
        return local.strftime(f"%a %d %b %H:%M{seconds}{name}")

    def bin_labels(self) -> list[str]:
        return [self.label(self.start + number * self.width) for number in range(self.bins)]

    @cached_property
    def changes(self) -> list[Change]:
        """When the clocks change within the span."""
        found = []
        instant = self.start
        while instant + QUARTER < self.end:
            before, after = (each.astimezone(self.zone) for each in (instant, instant + QUARTER))
            offsets = before.utcoffset(), after.utcoffset()
            if offsets[0] is not None and offsets[1] is not None and offsets[0] != offsets[1]:
                # All of today's rules change the clocks at a quarter of an hour.
                was = (instant + QUARTER).astimezone(UTC) + offsets[0]
                jump = (offsets[1] - offsets[0]) // timedelta(minutes=1)
                way = "forward" if jump > 0 else "back"
                sentence = (
                    f"On {after:%A} {after.day} {after:%B} the clocks go {way} from {was:%H:%M} "
                    f"{before:%Z} to {after:%H:%M} {after:%Z}. The axis is even in the time that "
                    f"passes: the {abs(jump)} minutes in between are "
                    + ("missing." if jump > 0 else "on it twice.")
                )
                found.append(Change(instant + QUARTER, sentence))
            instant += QUARTER
        return found

    def tick_levels(self) -> list[dict[str, Any]]:
        """Ticks from the finest step to the coarsest: which one fits is known when it is drawn."""
        places: dict[int, tuple[list[float], list[str]]] = {step: ([], []) for step in TICK_STEPS}
        changed = {change.at for change in self.changes}
        instant, day, last = self.start, -1, None
        while instant <= self.end:
            local = instant.astimezone(self.zone)
            if local.date() != last:
                day, last = day + 1, local.date()
            minute = local.hour * 60 + local.minute
            for step, (at, text) in places.items():
                if step < DAY:
                    due = minute % step == 0 and not self._beside_change(instant, step)
                    due = due or (instant in changed and step <= MARKS_CHANGES)
                else:
                    due = minute == 0 and day % (step // DAY) == 0
                if due and len(at) <= MOST_TICKS:
                    at.append(self.place(instant))
                    text.append(self._tick(local, minute, instant))
            instant += QUARTER
        fitting = [
            {"minutes": step, "at": at, "text": text}
            for step, (at, text) in places.items()
            if 0 < len(at) <= MOST_TICKS
        ]
        return [
            level
            for number, level in enumerate(fitting)
            if number == 0 or level["at"] != fitting[number - 1]["at"]
        ]

    def _beside_change(self, instant: datetime, step: int) -> bool:
        """Whether a tick here would touch that of a change of the clocks."""
        near = timedelta(minutes=0.6 * step)
        return 60 < step <= MARKS_CHANGES and any(
            timedelta(0) < abs(instant - change.at) < near for change in self.changes
        )

    def _tick(self, local: datetime, minute: int, instant: datetime) -> str:
        if minute == 0:
            return f"{local:%a}<br>{local.day} {local:%b}"
        twice = local.replace(fold=0).utcoffset() != local.replace(fold=1).utcoffset()
        changed = any(
            0 <= (instant - change.at) / timedelta(hours=1) < 1 for change in self.changes
        )
        return f"{local:%H:%M}<br>{local:%Z}" if twice or changed else f"{local:%H:%M}"
