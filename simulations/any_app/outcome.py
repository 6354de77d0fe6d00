"""What is to be replayed of an app, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import Any

from simulations.engine.faults import Fault

TOLD = ("runs", "succeeded", "failed", "retried", "redelivered", "lost")


@dataclass(frozen=True)
class AppPlan:
    """What is to be replayed."""

    app: str
    """As ``celery -A`` takes it."""
    day: date
    days: int = 1
    seed: int = 1
    workers: int = 2
    concurrency: int = 4
    beats: int = 1
    broker_url: str | None = None
    service_times: str | None = None
    faults: tuple[Fault, ...] = ()

    @property
    def command(self) -> str:
        """The command that repeats this run."""
        words = [
            f"python simulations/day.py --app {self.app}",
            f"--date {self.day.isoformat()} --days {self.days} --seed {self.seed}",
            f"--workers {self.workers} --concurrency {self.concurrency} --beats {self.beats}",
        ]
        if self.service_times is not None:
            words.append(f"--service-times {self.service_times}")
        if self.broker_url is not None:
            words.append(f"--broker {self.broker_url}")
        return " ".join([*words, *(f'--fault "{fault}"' for fault in self.faults)])


@dataclass(frozen=True)
class Hour:
    """One hour of the replay, on the local wall clock."""

    begins: str
    deepest: int = 0
    """The most messages that waited at once, over all queues."""
    queue: str = ""
    """The queue that held most of them."""
    busiest: int = 0
    """The most slots that were in use at once."""


@dataclass(frozen=True)
class AppOutcome:
    """What became of it."""

    plan: AppPlan
    timezone: str
    slots: int
    trace_hash: str
    events: int
    wall_seconds: float
    beat: dict[str, int]
    tasks: dict[str, dict[str, int]]
    queues: dict[str, dict[str, float]]
    hours: list[Hour]
    together: dict[str, int]
    """Pairs of entries, and how often both were due at the same instant."""
    left: int
    """Messages that still waited or ran at the end."""
    sometimes: dict[str, int]
    """How often things went wrong."""
    warnings: list[str] = field(default_factory=list)
    """Where the app's real workers would do something else."""
    changing_days: dict[str, dict[str, int]] = field(default_factory=dict)
    """Runs of each entry on the next days on which the clocks change, and on a plain one."""

    @property
    def peak(self) -> Hour:
        """The first hour with the deepest backlog."""
        return max(self.hours, key=lambda hour: hour.deepest, default=Hour("no hour"))

    def as_dict(self) -> dict[str, Any]:
        """What ``--json`` writes."""
        return {
            "app": self.plan.app,
            "date": self.plan.day.isoformat(),
            "days": self.plan.days,
            "timezone": self.timezone,
            "seed": self.plan.seed,
            "broker": "redis" if self.plan.broker_url else "memory",
            "trace_hash": self.trace_hash,
            "events": self.events,
            "wall_seconds": round(self.wall_seconds, 3),
            "events_per_second": round(self.events / self.wall_seconds, 1),
            "beat": self.beat,
            "tasks": {
                name: {end: counts.get(end, 0) for end in TOLD}
                for name, counts in self.tasks.items()
            },
            "queues": self.queues,
            # Of an app whose bodies are not run nothing is known of these.
            "mails": {"expected": 0, "delivered": 0, "doubled": 0},
            "invariants": {},
            "sometimes": self.sometimes,
            "hours": [vars(hour) for hour in self.hours],
            "together": self.together,
            "left": self.left,
            "warnings": self.warnings,
            "changing_days": self.changing_days,
            "replay": self.plan.command,
        }
