"""What is to be replayed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, time

from simulations.engine.faults import Fault

_OPTIONS = {
    "--days": "days",
    "--hours": "hours",
    "--bookings": "bookings",
    "--instructors": "instructors",
    "--workers": "workers",
    "--concurrency": "concurrency",
    "--beats": "beats",
    "--broker": "broker_url",
}


@dataclass(frozen=True)
class Plan:
    """The arguments of a replay: the same ones give the same trace."""

    day: date = date(2026, 7, 15)
    days: int = 1
    hours: int | None = None
    """The last day is over after so many; until then all is as on the whole day."""
    seed: int = 1
    bookings: int = 2000
    """A day."""
    instructors: int | None = None
    """A tenth of the bookings where none is given."""
    workers: int = 2
    concurrency: int = 4
    beats: int = 1
    broker_url: str | None = None
    storm: tuple[time, int] | None = None
    """So many bookings more within the five minutes from this time of the first day on."""
    faults: tuple[Fault, ...] = ()
    """All on the first day."""
    skip_quiet_ticks: bool = True

    @property
    def teachers(self) -> int:
        """How many instructors there are."""
        return self.instructors or max(5, self.bookings // 10)

    @property
    def command(self) -> str:
        """The command that repeats this run."""
        words = [
            "python simulations/day.py",
            f"--date {self.day.isoformat()}",
            f"--seed {self.seed}",
        ]
        default = Plan()
        for option, name in _OPTIONS.items():
            if getattr(self, name) not in (getattr(default, name), None):
                words.append(f"{option} {getattr(self, name)}")
        if self.storm is not None:
            words.append(f"--storm {self.storm[0]:%H:%M}/{self.storm[1]}")
        words += [f'--fault "{fault}"' for fault in self.faults]
        return " ".join(words)
