"""What can go wrong in the marketplace's deployment."""

from __future__ import annotations

from collections.abc import Callable
from datetime import time, timedelta
from functools import partial
from random import Random
from typing import Protocol

from simulations.engine.deployment import Deployment
from simulations.engine.faults import ENGINE_FAULTS, Fault, FaultKind
from simulations.marketplace.database import Database
from simulations.marketplace.mail import MailProvider, Mood

DRAWN = (3, 8)
"""How many faults a day of chaos has."""
LONGEST_DRAWN = timedelta(minutes=40)


class Stage(Protocol):
    deployment: Deployment
    database: Database
    provider: MailProvider


def _mood(mood: Mood, stage: Stage, _rng: Random) -> Callable[[], None]:
    stage.provider.moods[mood] += 1

    def well() -> None:
        stage.provider.moods[mood] -= 1

    return well


def _lock(stage: Stage, _rng: Random) -> Callable[[], None]:
    stage.database.locks += 1

    def unlock() -> None:
        stage.database.locks -= 1

    return unlock


def _on_deployment(kind: FaultKind[Deployment]) -> FaultKind[Stage]:
    def begin(stage: Stage, rng: Random) -> Callable[[], None] | None:
        return kind.begin(stage.deployment, rng)

    return FaultKind(kind.name, kind.what, kind.lasts, begin)


FAULTS: tuple[FaultKind[Stage], ...] = (
    *map(_on_deployment, ENGINE_FAULTS),
    FaultKind("smtp-down", "the mail server takes no connection", True, partial(_mood, Mood.DOWN)),
    FaultKind("smtp-slow", "each mail takes the server 4 s", True, partial(_mood, Mood.SLOW)),
    FaultKind(
        "smtp-busy", "the server refuses every second mail (451)", True, partial(_mood, Mood.BUSY)
    ),
    FaultKind(
        "smtp-silent",
        "the server accepts mails and hangs up on every second one before it has said so",
        True,
        partial(_mood, Mood.SILENT),
    ),
    FaultKind("database-locked", "another program holds SQLite's write lock", True, _lock),
)

BEAT_FAULTS = frozenset(
    {"beat-down", "kill-beat", "redis-down", "redis-emptied", "database-locked", "wrong-clock"}
)
"""Those after which a due instant may be caught up later, or made up for by a later one."""


def draw(rng: Random, *, busy: time) -> tuple[Fault, ...]:
    """The faults of a day of chaos, in their order; half of them while most is going on."""
    drawn = []
    for _ in range(rng.randint(*DRAWN)):
        kind = rng.choice(FAULTS)
        at = time(rng.randrange(24), rng.randrange(60), rng.randrange(60))
        if rng.random() < 0.5:
            minute = min(59, busy.minute + rng.randrange(10))
            at = time(busy.hour, minute, rng.randrange(60))
        # As many short ones as long ones: from seconds on, to the longest.
        longest = LONGEST_DRAWN.total_seconds()
        seconds = round(5 * (longest / 5) ** rng.random())
        drawn.append(Fault(kind.name, at, timedelta(seconds=seconds) if kind.lasts else None))
    return tuple(sorted(drawn, key=lambda fault: (fault.at, fault.kind)))
