"""Many days with drawn faults, on all cores; and the fewest faults that break one."""

from __future__ import annotations

import os
import signal
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from datetime import time
from multiprocessing import active_children, get_context
from random import Random
from typing import Any, NoReturn

from simulations.cli import INTERRUPTED
from simulations.marketplace import faults
from simulations.marketplace.plan import Plan
from simulations.marketplace.replay import Replay

BOOKINGS = 60
"""Of a day of chaos: small, for many days find more than large ones."""
RUSH = 40
"""Bookings within five minutes, in the middle of the faults."""
SEEDS = 50
"""Days, where nobody says how many."""
CRASHED = "the replay itself failed"


@dataclass(frozen=True)
class DayOfChaos:
    """What became of one day."""

    plan: Plan
    events: int
    sometimes: dict[str, int]
    invariant: str | None = None
    """The name of the broken one."""
    what: str = ""
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chaos:
    """What became of all days."""

    days: tuple[DayOfChaos, ...]
    fewest: Plan | None = None
    """The first broken day with the fewest faults that still break it."""

    @property
    def first_broken(self) -> DayOfChaos | None:
        return next((day for day in self.days if day.invariant is not None), None)

    @property
    def sometimes(self) -> dict[str, int]:
        """In how many days each thing happened."""
        days: Counter[str] = Counter()
        for what in (*(f"fault: {kind.name}" for kind in faults.FAULTS), *faults.STRUCK):
            days[what] = 0
        for day in self.days:
            for what, number in day.sometimes.items():
                days[what] += number > 0
        return dict(days)

    @property
    def never_struck(self) -> list[str]:
        """Each kind of fault that no day had, of days that were enough to have all of them."""
        if len(self.days) < len(faults.FAULTS):
            return []
        return [
            what
            for what, days in self.sometimes.items()
            if not days and (what.startswith("fault: ") or what in faults.STRUCK)
        ]

    def as_dict(self) -> dict[str, Any]:
        """What ``--json`` writes."""
        broken = self.first_broken
        return {
            "seeds": len(self.days),
            "events": sum(day.events for day in self.days),
            "broken": sum(day.invariant is not None for day in self.days),
            "first_broken": None
            if broken is None
            else {
                "invariant": broken.invariant,
                "what": broken.what,
                "replay": broken.plan.command,
            },
            "fewest_faults": None if self.fewest is None else self.fewest.command,
            "never_struck": self.never_struck,
            "sometimes": self.sometimes,
        }


def plan_for(base: Plan, seed: int) -> Plan:
    """The day of chaos of a seed: a rush, faults, and now and then more than one beat.

    Seeds that follow each other take turns through the kinds of faults, so that none is left
    out of a run with as many days.
    """
    rng = Random(f"{seed}:chaos")
    busy = time(rng.randrange(24), rng.randrange(50))
    return replace(
        base,
        seed=seed,
        storm=(busy, RUSH),
        faults=faults.draw(rng, busy=busy, surely=faults.FAULTS[seed % len(faults.FAULTS)]),
        beats=rng.choice((1, 1, 2)),
    )


def replay(plan: Plan) -> DayOfChaos:
    """Replay one day; an error of the replay itself is told as a broken day."""
    try:
        with Replay(plan) as running:
            outcome = running.run()
    except Exception as error:
        return DayOfChaos(
            plan,
            0,
            {},
            CRASHED,
            f"{type(error).__name__}: {error}",
            tuple(traceback.format_exc().splitlines()),
        )
    if outcome.broken is None:
        return DayOfChaos(plan, outcome.events, outcome.sometimes)
    broken = outcome.broken
    return DayOfChaos(
        plan, outcome.events, outcome.sometimes, broken.name, str(broken), tuple(broken.lines)
    )


def _replay_in_pool(plan: Plan) -> DayOfChaos:
    """``replay``, in a process that Ctrl-C ends when it has put all away.

    The pool's own loop would hand the interruption on and take the next day.
    """
    try:
        return replay(plan)
    except KeyboardInterrupt:
        os._exit(INTERRUPTED)


def _interrupt_days(*_: object) -> NoReturn:
    """Handle SIGTERM, which the pool's processes do not receive, as Ctrl-C."""
    for child in active_children():
        if child.pid is not None:
            os.kill(child.pid, signal.SIGINT)
    raise KeyboardInterrupt


def run(base: Plan, *, seeds: int, progress: Callable[[DayOfChaos], None]) -> Chaos:
    """Replay ``seeds`` days from the base's seed on; stops at the first broken one."""
    days: dict[int, DayOfChaos] = {}
    plans = [plan_for(base, base.seed + number) for number in range(seeds)]
    # Not forked: nothing of the parent's clocks, connections or caches may be shared.
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        before = signal.signal(signal.SIGTERM, _interrupt_days)
        running = {pool.submit(_replay_in_pool, plan): plan.seed for plan in plans}
        try:
            for future in as_completed(running):
                day = future.result()
                days[running[future]] = day
                progress(day)
                if day.invariant is not None:
                    break
        finally:
            # Also after Ctrl-C: else the days that nobody has begun would be waited for.
            pool.shutdown(wait=False, cancel_futures=True)
            signal.signal(signal.SIGTERM, before)
    return Chaos(tuple(day for _, day in sorted(days.items())))


def shrink(plan: Plan, invariant: str) -> Plan:
    """The plan without each fault that is not needed to break the same invariant.

    One fault is left out at a time until none can be (Zeller and Hildebrandt, "Simplifying
    and Isolating Failure-Inducing Input", 2002, 3.3: a 1-minimal set).
    """
    position = 0
    while position < len(plan.faults):
        fewer = replace(plan, faults=plan.faults[:position] + plan.faults[position + 1 :])
        if replay(fewer).invariant == invariant:
            plan = fewer
        else:
            position += 1
    return plan
