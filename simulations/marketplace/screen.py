"""What a person sees of a replay on the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from simulations.engine.faults import FaultKind
from simulations.live import live
from simulations.marketplace.chaos import Chaos, DayOfChaos
from simulations.marketplace.outcome import Outcome
from simulations.marketplace.replay import CALM, Replay
from simulations.tables import table


def watch(console: Console, replay: Replay) -> Outcome:
    """Run the replay; in a terminal with the virtual clock and the speed."""
    end = replay.end + CALM
    with live(console, start=replay.start, end=end, zone=replay.zone) as tell:
        if tell is None:
            return replay.run()
        trace = replay.deployment.trace
        return replay.run(progress=lambda now: tell(now, trace.lines))


def show(console: Console, outcome: Outcome) -> None:
    """The verdict, then the figures, then how to repeat it."""
    plan = outcome.plan
    if outcome.broken is None:
        console.print(f"[green]All {len(outcome.invariants)} invariants hold.[/green]")
    else:
        broken = outcome.broken
        console.print(f"[red]Broken:[/red] {broken.name}", highlight=False)
        console.print(f"  {broken.what}", highlight=False, markup=False)
        console.print(f"  at {broken.at.isoformat()}", highlight=False)
        for line in broken.lines:
            console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
    days = "a day" if plan.days == 1 else f"{plan.days} days"
    console.print(
        f"{days} from {plan.day}, {outcome.timezone}, seed {plan.seed}: {outcome.events:,} events "
        f"in {outcome.wall_seconds:.1f} s, {outcome.events_per_second:,.0f} a second",
        highlight=False,
    )
    mails = outcome.mails
    console.print(
        f"mails: {mails['expected']:,} owed and {mails['delivered']:,} of them delivered, "
        f"{mails['besides']:,} besides, {mails['doubled']} doubled",
        highlight=False,
    )
    console.print(table(("beat entry", "runs"), outcome.beat.items()))
    console.print(
        table(
            ("queue", "published", "deepest", "waited p50 s", "p99 s"),
            (
                (name, each["published"], each["max_depth"], each["wait_p50"], each["wait_p99"])
                for name, each in outcome.queues.items()
            ),
        )
    )
    console.print(
        table(
            ("task", "runs", "succeeded", "retried", "failed", "redelivered"),
            (
                (name.removeprefix("app.tasks."), *(counts.get(end, 0) for end in _ENDS))
                for name, counts in outcome.tasks.items()
            ),
        )
    )
    if plan.faults:
        console.print(table(("sometimes", "times"), outcome.sometimes.items()))
    if outcome.fewest is not None:
        fewest = f"fewest faults: {outcome.fewest.command}"
        console.print(fewest, highlight=False, markup=False, soft_wrap=True)
    console.print(f"trace {outcome.trace_hash}", highlight=False)
    console.print(f"repeat: {plan.command}", highlight=False, markup=False, soft_wrap=True)


_ENDS = ("runs", "succeeded", "retried", "failed", "redelivered")


def list_faults(kinds: Iterable[FaultKind[Any]]) -> None:
    """Each fault's syntax, and what it does."""
    for kind in kinds:
        print(f"{kind.syntax:26} {kind.what}")


class Progress:
    """A bar of days; without a terminal a line for every tenth of them."""

    def __init__(self, console: Console, seeds: int) -> None:
        self._console = console
        self._seeds = seeds
        self._done = 0
        self._bar = Bar(
            TextColumn("{task.completed} of {task.total} days"),
            BarColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=seeds)
        self._bar.start()

    def __call__(self, day: DayOfChaos) -> None:
        self._done += 1
        self._bar.advance(self._task)
        if day.invariant is not None or self._done == self._seeds:
            self._bar.stop()
        if not self._console.is_terminal and self._done % max(1, self._seeds // 10) == 0:
            print(f"{self._done} of {self._seeds} days", flush=True)


def show_chaos(console: Console, found: Chaos) -> None:
    """The verdict, how often each thing happened, and how to repeat what broke."""
    broken = found.first_broken
    events = sum(day.events for day in found.days)
    if broken is None:
        console.print(
            f"[green]{len(found.days)} days, {events:,} events: no invariant is broken.[/green]"
        )
    else:
        console.print(f"[red]Broken with seed {broken.plan.seed}:[/red] {broken.invariant}")
        console.print(f"  {broken.what}", highlight=False, markup=False)
        for line in broken.lines:
            console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
    console.print(table(("sometimes", "days"), found.sometimes.items()))
    if found.never_struck:
        console.print(f"[red]Not proven:[/red] no day had {', '.join(found.never_struck)}")
    never = [what for what, days in found.sometimes.items() if days == 0]
    if never:
        console.print(f"never: {', '.join(never)}", highlight=False)
    if broken is not None:
        plan = found.fewest or broken.plan
        console.print(f"repeat: {plan.command}", highlight=False, markup=False, soft_wrap=True)
