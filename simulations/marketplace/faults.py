"""What can go wrong in the marketplace's deployment."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, time, timedelta
from functools import partial
from random import Random
from typing import Protocol
from uuid import UUID

from simulations.engine.deployment import Deployment
from simulations.engine.faults import ENGINE_FAULTS, Fault, FaultKind
from simulations.engine.memory_redis import LARGEST_ITEM
from simulations.marketplace.database import Database
from simulations.marketplace.mail import MailProvider, Mood

DRAWN = (3, 8)
"""How many faults a day of chaos has."""


REFUSED, SILENT = 0.0, 10.0
"""Seconds that an attempt to reach a lost database takes: as app.db bounds the connection."""

DEPTHS = {(3, 11): (940, 3_000), (3, 12): (1_500, 3_500)}.get(
    sys.version_info[:2], (10_000, 12_000)
)
"""Levels of nested arguments that this Python cannot publish: most it cannot even read."""


DATABASE_LOST = "a worker's statement refused"
CLOCK_STEPPED = "a worker stopped by its clock"
MUTEX_ORPHANED = "a mutex left by the dead"
ENTRY_SET_ASIDE = "an unpublishable entry set aside"
STRUCK = (DATABASE_LOST, CLOCK_STEPPED, MUTEX_ORPHANED, ENTRY_SET_ASIDE)
"""What faults do that could be drawn, and strike nothing."""


class Stage(Protocol):
    deployment: Deployment
    database: Database
    provider: MailProvider
    planted: set[str]
    """Ids of the entries that cannot be published."""


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


def _cut_workers_off(stage: Stage, rng: Random) -> Callable[[], None]:
    seconds = rng.choice((REFUSED, SILENT))
    stage.database.cuts.append(seconds)
    return lambda: stage.database.cuts.remove(seconds)


def _plant_unpublishable(stage: Stage, rng: Random) -> None:
    """Insert what an older release could have enqueued, and the broker cannot be given."""
    entry_id = str(UUID(int=rng.getrandbits(128), version=4))
    depth = rng.randrange(*DEPTHS)
    plant(stage, entry_id, rng.choice(("[" * depth + "]" * depth, f'["{"x" * LARGEST_ITEM}"]')))


def plant(stage: Stage, entry_id: str, args: str) -> None:
    """Insert a due entry with ``args`` past ``enqueue``, which would refuse them."""
    stage.planted.add(entry_id)
    stage.deployment.trace.emit("planted", id=entry_id)
    at = f"{stage.deployment.now.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}"
    stage.database.plant(_PLANT, entry_id, "app.tasks.bookings.mark_no_shows", args, at, at)


_PLANT = (
    "INSERT INTO outbox_entries (id, task, args, kwargs, queue, priority, state, created_at, "
    "due_at, publishes, resent, deliveries, tries, errors) "
    "VALUES (?, ?, ?, '{}', 'bookings', 0, 'pending', ?, ?, 0, 0, 0, 0, '[]')"
)


def _on_deployment(kind: FaultKind[Deployment]) -> FaultKind[Stage]:
    def begin(stage: Stage, rng: Random) -> Callable[[], None] | None:
        return kind.begin(stage.deployment, rng)

    return FaultKind(kind.name, kind.what, kind.lasts, begin, kind.shortest, kind.longest)


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
    FaultKind(
        "workers-lose-database",
        "workers do not reach the database: it refuses them, or is silent; beat reaches it",
        True,
        _cut_workers_off,
        shortest=timedelta(minutes=5),
    ),
    FaultKind(
        "unpublishable-entry",
        "an entry that cannot be published, nested too deep or too large for Redis, is due",
        False,
        _plant_unpublishable,
    ),
)

BEAT_FAULTS = frozenset(
    {"beat-down", "kill-beat", "redis-down", "redis-emptied", "database-locked", "wrong-clock"}
)
"""Those after which a due instant may be caught up later, or made up for by a later one."""


def draw(rng: Random, *, busy: time, surely: FaultKind[Stage]) -> tuple[Fault, ...]:
    """The faults of a day of chaos, in their order; half of them while most is going on.

    One is of the kind ``surely``.
    """
    drawn = []
    for number in range(rng.randint(*DRAWN)):
        kind = rng.choice(FAULTS) if number else surely
        at = time(rng.randrange(24), rng.randrange(60), rng.randrange(60))
        if rng.random() < 0.5:
            minute = min(59, busy.minute + rng.randrange(10))
            at = time(busy.hour, minute, rng.randrange(60))
        # As many short ones as long ones: from seconds on, to the longest.
        shortest, longest = kind.shortest.total_seconds(), kind.longest.total_seconds()
        seconds = round(shortest * (longest / shortest) ** rng.random())
        drawn.append(Fault(kind.name, at, timedelta(seconds=seconds) if kind.lasts else None))
    return tuple(sorted(drawn, key=lambda fault: (fault.at, fault.kind)))
