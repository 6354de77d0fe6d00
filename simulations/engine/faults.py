"""Faults: what can go wrong in a deployment, and when it is to."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from random import Random
from typing import Any, Generic, TypeVar

from simulations.arguments import duration
from simulations.engine.deployment import Deployment

Stage = TypeVar("Stage")
End = Callable[[], None]

_SYNTAX = re.compile(
    r"(?P<name>[a-z-]+)@(?P<hour>\d{1,2}):(?P<minute>\d{2})(:(?P<second>\d{2}))?"
    r"(/(?P<duration>.*))?"
)
STRIKES_WITHIN = 60
"""A kill strikes at one of so many of its victim's next checkpoints: a task has about as many."""
WHILE_IT_HOLDS = 10
"""A worker that has just started a task holds its message for so many checkpoints at least."""
EMPTIED_FOR = 5.0
"""Seconds that a Redis takes that starts again with nothing."""
LARGEST_CLOCK_ERROR = 8.0
"""Seconds, of a worker: it refuses to start with more than a third of the visibility timeout."""
SMALLEST_CLOCK_STEP, LARGEST_CLOCK_STEP = 11.0, 86_400.0
"""Seconds, of a worker while it runs: more than it would start with, up to a day."""
LARGEST_BEAT_CLOCK_ERROR = 600.0
"""Seconds: four times what makes a beat fall silent."""


class FaultError(ValueError):
    """A fault was written wrongly; the message says what would be right."""


@dataclass(frozen=True)
class FaultKind(Generic[Stage]):
    """A way in which things go wrong."""

    name: str
    what: str
    lasts: bool
    """Whether it is written with a duration."""
    begin: Callable[[Stage, Random], End | None]
    """Does it, drawing what is left open; returns what ends it."""
    shortest: timedelta = timedelta(seconds=5)
    longest: timedelta = timedelta(minutes=40)
    """Where its duration is drawn, it is at least and at most so long."""

    @property
    def syntax(self) -> str:
        return f"{self.name}@HH:MM/30m" if self.lasts else f"{self.name}@HH:MM"


@dataclass(frozen=True)
class Fault:
    """One fault of a run: its kind's name, when on the local wall clock, and for how long."""

    kind: str
    at: time
    duration: timedelta | None = None

    def __str__(self) -> str:
        lasts = ""
        if self.duration is not None:
            seconds = round(self.duration.total_seconds())
            lasts = f"/{seconds // 60}m" if seconds % 60 == 0 else f"/{seconds}s"
        clock = f"{self.at:%H:%M:%S}" if self.at.second else f"{self.at:%H:%M}"
        return f"{self.kind}@{clock}{lasts}"

    def starts(self, day: date, zone: tzinfo) -> datetime:
        return datetime.combine(day, self.at, zone)


def parse(text: str, kinds: Sequence[FaultKind[Stage]]) -> Fault:
    """Read a fault such as ``redis-down@16:00/5m``. Raises ``FaultError``."""
    example = "for example redis-down@16:00/5m"
    found = _SYNTAX.fullmatch(text)
    if found is None:
        raise FaultError(
            f"{text!r} is not a fault: write NAME@HH:MM or NAME@HH:MM/DURATION, {example}"
        )
    kind = next((kind for kind in kinds if kind.name == found["name"]), None)
    if kind is None:
        known = ", ".join(kind.name for kind in kinds)
        raise FaultError(f"there is no fault {found['name']!r}, only {known}")
    try:
        at = time(int(found["hour"]), int(found["minute"]), int(found["second"] or 0))
    except ValueError:
        raise FaultError(f"{text!r} names no time of day: {example}") from None
    if kind.lasts and found["duration"] is None:
        raise FaultError(f"{text!r} needs a duration: write {kind.syntax}")
    if not kind.lasts and found["duration"] is not None:
        raise FaultError(f"{text!r} takes no duration: write {kind.syntax}")
    if not kind.lasts:
        return Fault(kind.name, at)
    try:
        lasts = duration(found["duration"])
    except ArgumentTypeError as error:
        raise FaultError(f"{text!r}: {error}") from None
    if not lasts:
        raise FaultError(f"{text!r} lasts no time: {example}")
    return Fault(kind.name, at, lasts)


def schedule(
    deployment: Deployment,
    stage: Stage,
    faults: Sequence[Fault],
    kinds: Sequence[FaultKind[Stage]],
    *,
    day: date,
    zone: tzinfo,
) -> None:
    """Let the faults happen on ``day``, each drawing from a generator of its own."""
    by_name = {kind.name: kind for kind in kinds}
    for fault in faults:
        # By what it is, not by its place in the list: leaving another one out changes nothing.
        rng = deployment.rng(f"fault {fault}")
        kind = by_name[fault.kind]

        def begin(fault: Fault = fault, kind: FaultKind[Stage] = kind, rng: Random = rng) -> None:
            deployment.trace.emit("fault", fault=str(fault), phase="begin")
            end = kind.begin(stage, rng)
            if fault.duration is not None and end is not None:
                deployment.loop.call_later(
                    fault.duration.total_seconds(), lambda: _end(deployment, fault, end)
                )

        deployment.loop.call_at(fault.starts(day, zone), begin)


def _end(deployment: Deployment, fault: Fault, end: End) -> None:
    deployment.trace.emit("fault", fault=str(fault), phase="end")
    end()


def _kill_worker(deployment: Deployment, rng: Random) -> None:
    alive = [worker for worker in deployment.workers.values() if worker.alive]
    if alive:
        busy = [worker for worker in alive if worker.holds_messages]
        rng.choice(busy or alive).kill_after(rng.randrange(STRIKES_WITHIN))


def _kill_child(deployment: Deployment, rng: Random) -> None:
    worker = deployment.workers[rng.choice(sorted(deployment.workers))]
    if worker.alive:
        worker.lose_next_child(rng.randrange(STRIKES_WITHIN))


def _kill_beat(deployment: Deployment, rng: Random) -> None:
    alive = [beat for beat in deployment.beats.values() if beat.alive]
    if alive:
        rng.choice(alive).kill_after(rng.randrange(STRIKES_WITHIN))


def _hold_down(deployment: Deployment, names: Sequence[str]) -> End:
    for name in names:
        deployment.hold_down(name)

    def end() -> None:
        for name in names:
            deployment.let_start(name)

    return end


def _redis_down(deployment: Deployment, _rng: Random) -> End:
    deployment.broker.go_down()
    return deployment.broker.come_back


def _redis_emptied(deployment: Deployment, _rng: Random) -> None:
    deployment.broker.go_down()
    deployment.loop.call_later(EMPTIED_FOR, lambda: deployment.broker.come_back(emptied=True))


def _duplicate(deployment: Deployment, rng: Random) -> None:
    deployment.broker.duplicate_next(rng.randrange(5))


def _second_beat(deployment: Deployment, _rng: Random) -> End:
    name = f"beat{len(deployment.beats) + 1}"
    deployment.start_beat(name)
    return lambda: deployment.hold_down(name)


def _wrong_clock(deployment: Deployment, rng: Random) -> End:
    names = sorted([*deployment.workers, *deployment.beats])
    name = rng.choice(names)
    largest = LARGEST_BEAT_CLOCK_ERROR if name in deployment.beats else LARGEST_CLOCK_ERROR
    error = timedelta(seconds=round(rng.uniform(-largest, largest), 3))
    return deployment.mislead(name, error)


def _step_clock(deployment: Deployment, rng: Random) -> End | None:
    step = SMALLEST_CLOCK_STEP * (LARGEST_CLOCK_STEP / SMALLEST_CLOCK_STEP) ** rng.random()
    error = timedelta(seconds=round(step * rng.choice((-1, 1)), 3))
    alive = [name for name, worker in sorted(deployment.workers.items()) if worker.alive]
    if not alive:
        return None
    name = rng.choice(alive)
    deployment.trace.emit("clock", process=name, step=error.total_seconds())
    return deployment.mislead(name, error)


def _orphan_mutex(deployment: Deployment, rng: Random) -> None:
    after = rng.randrange(WHILE_IT_HOLDS)
    struck = False

    def strike(_now: datetime, event: str, fields: Mapping[str, Any]) -> None:
        nonlocal struck
        if struck or event != "started":
            return
        struck = True
        # Its messages come back after the visibility timeout, and the first process that looks
        # for them dies in the middle of it.
        deployment.workers[fields["worker"]].kill_after(after)
        deployment.broker.kill_next_holder()

    deployment.trace.observe(strike)


ENGINE_FAULTS: tuple[FaultKind[Deployment], ...] = (
    FaultKind(
        "kill-worker",
        "SIGKILL of a busy worker at one of its next statements or commands; a supervisor "
        "starts it again after 3 s",
        False,
        _kill_worker,
    ),
    FaultKind(
        "kill-child",
        "SIGKILL of a child of a worker's pool, in the middle of one of the next tasks",
        False,
        _kill_child,
    ),
    FaultKind(
        "kill-beat",
        "SIGKILL of a beat at one of its next statements; started again after 3 s",
        False,
        _kill_beat,
    ),
    FaultKind(
        "workers-down",
        "all workers are killed and none is started for so long",
        True,
        lambda deployment, _: _hold_down(deployment, sorted(deployment.workers)),
    ),
    FaultKind(
        "beat-down",
        "all beats are killed and none is started for so long",
        True,
        lambda deployment, _: _hold_down(deployment, sorted(deployment.beats)),
    ),
    FaultKind("second-beat", "one more beat runs for so long", True, _second_beat),
    FaultKind(
        "redis-down",
        "Redis refuses every command for so long, and keeps its data",
        True,
        _redis_down,
    ),
    FaultKind(
        "redis-emptied", "Redis is away for 5 s and comes back with nothing", False, _redis_emptied
    ),
    FaultKind("duplicate", "one of the next messages is in its queue twice", False, _duplicate),
    FaultKind(
        "wrong-clock",
        "the clock of a worker is up to 8 s wrong for so long, or that of a beat up to 10 min",
        True,
        _wrong_clock,
    ),
    FaultKind(
        "clock-step",
        "the clock of a worker that runs steps by 11 s to a day, and is right again after so long",
        True,
        _step_clock,
        # More than a round of the lease, which compares the clocks. Until it is right again, the
        # supervisor starts the worker every three seconds, in vain.
        shortest=timedelta(seconds=10),
        longest=timedelta(minutes=2),
    ),
    FaultKind(
        "mutex-orphaned",
        "SIGKILL of a worker that holds a message, then of the one that looks for expired leases, "
        "with kombu's mutex in its hands",
        False,
        _orphan_mutex,
    ),
)
