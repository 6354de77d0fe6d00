"""What was seen of a span of days, beside what is right."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, astuple, dataclass
from datetime import UTC, date, datetime, timedelta
from operator import add
from typing import Any
from zoneinfo import ZoneInfo

from scripts.schedule_year.world import Kills, Run

DAY = timedelta(days=1)
ByDay = dict[date, Counter[str]]
"""How often each entry ran, by local day."""


def by_instant(run: Run) -> tuple[datetime, str]:
    return run[1], run[0]


def by_day(runs: Counter[Run], zone: ZoneInfo) -> ByDay:
    days: ByDay = {}
    for (name, due), count in runs.items():
        days.setdefault(due.astimezone(zone).date(), Counter())[name] += count
    return days


def _together(one: ByDay, other: ByDay) -> ByDay:
    days = sorted({*one, *other})
    return {day: one.get(day, Counter()) + other.get(day, Counter()) for day in days}


@dataclass
class Findings:
    """What was seen, beside what is right."""

    start: datetime
    end: datetime
    zone: str
    seed: int
    instants: int
    runs: int
    missing: list[Run]
    extra: list[Run]
    pushed_twice: int
    kills: Kills
    ticks: int
    torn: int
    by_day: ByDay
    right_by_day: ByDay
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether each due instant had exactly one run, and each run one message."""
        return not (self.missing or self.extra or self.pushed_twice)

    def followed_by(self, later: Findings) -> Findings:
        """Both spans as one."""
        return Findings(
            start=self.start,
            end=later.end,
            zone=self.zone,
            seed=self.seed,
            instants=self.instants + later.instants,
            runs=self.runs + later.runs,
            missing=self.missing + later.missing,
            extra=self.extra + later.extra,
            pushed_twice=self.pushed_twice + later.pushed_twice,
            kills=Kills(*map(add, astuple(self.kills), astuple(later.kills))),
            ticks=self.ticks + later.ticks,
            torn=self.torn + later.torn,
            by_day=_together(self.by_day, later.by_day),
            right_by_day=_together(self.right_by_day, later.right_by_day),
            seconds=max(self.seconds, later.seconds),
        )

    def hours(self, day: date) -> int:
        """How long a local day is."""
        zone = ZoneInfo(self.zone)
        midnight, next_one = (
            datetime(on.year, on.month, on.day, tzinfo=zone).astimezone(UTC)
            for on in (day, day + DAY)
        )
        return (next_one - midnight) // timedelta(hours=1)

    def counts(self, hours: int, name: str) -> list[int]:
        """How often an entry ran on days of this length: each number that occurs."""
        return sorted(
            {
                seen[name]
                for day, seen in self.by_day.items()
                if self.hours(day) == hours and self.right_by_day[day][name]
            }
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "holds": self.holds,
            "zone": self.zone,
            "start": self.start.isoformat(),
            "end": self.end.isoformat(),
            "seed": self.seed,
            "due_instants": self.instants,
            "runs": self.runs,
            "missing": [[name, due.isoformat()] for name, due in self.missing],
            "extra": [[name, due.isoformat()] for name, due in self.extra],
            "pushed_twice": self.pushed_twice,
            "kills": {**asdict(self.kills), "total": self.kills.total},
            "ticks": self.ticks,
            "ticks_in_the_middle_of_another": self.torn,
            "seconds": round(self.seconds, 1),
            "by_day": {day.isoformat(): dict(seen) for day, seen in sorted(self.by_day.items())},
        }
