"""What became of a replay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from simulations.marketplace.invariants import INVARIANTS, BrokenInvariantError
from simulations.marketplace.plan import Plan

HELD = "held"
ENDS = ("runs", "succeeded", "failed", "retried", "redelivered", "lost")


@dataclass(frozen=True)
class Outcome:
    """The figures of a replay, and the invariant that is broken, if one is."""

    plan: Plan
    timezone: str
    trace_hash: str
    events: int
    """Lines of the trace."""
    wall_seconds: float
    beat: dict[str, int]
    """Runs of each entry whose due instants lie in the days."""
    tasks: dict[str, dict[str, int]]
    queues: dict[str, dict[str, float]]
    mails: dict[str, int]
    """``besides``: those that were right when they went out, as of lessons cancelled since."""
    people: dict[str, int]
    """What people did."""
    sometimes: dict[str, int]
    """How often things happened without which a run would prove little."""
    broken: BrokenInvariantError | None
    fewest: Plan | None = None
    """The plan with the fewest faults that still break the same invariant, if asked for."""

    @property
    def invariants(self) -> dict[str, str]:
        """Each one's name, and "held" or what broke it; the first broken one ends the replay."""
        told = dict.fromkeys((invariant.name for invariant in INVARIANTS), HELD)
        if self.broken is not None:
            told = dict.fromkeys(told, "not broken until then")
            told[self.broken.name] = self.broken.what
        return told

    @property
    def events_per_second(self) -> float:
        return self.events / self.wall_seconds

    def as_dict(self) -> dict[str, Any]:
        """What ``--json`` writes."""
        plan = self.plan
        return {
            "date": plan.day.isoformat(),
            "days": plan.days,
            "timezone": self.timezone,
            "seed": plan.seed,
            "broker": "redis" if plan.broker_url else "memory",
            "faults": [str(fault) for fault in plan.faults],
            "trace_hash": self.trace_hash,
            "events": self.events,
            "wall_seconds": round(self.wall_seconds, 3),
            "events_per_second": round(self.events_per_second, 1),
            "beat": self.beat,
            "tasks": {
                name: {end: counts.get(end, 0) for end in ENDS}
                for name, counts in self.tasks.items()
            },
            "queues": self.queues,
            "mails": self.mails,
            "people": self.people,
            "invariants": self.invariants,
            "sometimes": self.sometimes,
            "broken": None if self.broken is None else self.broken.name,
            "fewest_faults": None if self.fewest is None else self.fewest.command,
            "replay": plan.command,
        }
