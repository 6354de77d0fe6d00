"""What each part of our worker costs beside a bare ``celery.Task``: no-op tasks, in turns.

    python -m scripts.bench_overhead --n 2000 --rounds 5

The worker is the same in all: prefork, two slots, our configuration. A message is what ``celery
call`` sends, so the cost of ``BaseTask`` is that of the base class; then the same through the
outbox, which is no base class's cost but what the promise costs: a row that is read, marked
done in a transaction and published. Then each part is switched off alone, so that defaults
are decided by figures. Exit status 0 only where ``BaseTask`` costs at most the goal.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

from scripts.arguments import run_command
from scripts.benchmarks import command
from scripts.benchmarks.command import Benchmark
from scripts.benchmarks.draining import drain
from scripts.benchmarks.environment import WITHOUT
from scripts.benchmarks.series import Series, alternating, compare, significant
from scripts.benchmarks.stage import SLOTS, stage
from scripts.benchmarks.systems import OURS_CALLED

GOAL_PERCENT = 10.0


@dataclass(frozen=True)
class Part:
    """A way to run a no-op in our worker."""

    name: str
    task: str
    environment: Mapping[str, str] = field(default_factory=dict)
    beside: str = ""
    """The variant that it differs from in one thing."""
    words: tuple[str, ...] = ()


BARE = Part("celery.Task, called", "bare")
OURS = Part("BaseTask, called", "noop", beside=BARE.name)
ROW = Part("BaseTask with a row", "row noop", beside=OURS.name)
GUARDED = Part("BaseTask with a row and its guard", "guarded", beside=ROW.name)


def _without(part: str, words: str, beside: Part = OURS) -> Part:
    return Part(f"{beside.name}, {words}", beside.task, {WITHOUT: part}, beside=beside.name)


PARTS = (
    BARE,
    OURS,
    ROW,
    GUARDED,
    _without("events", "no task events"),
    _without("metrics", "no metrics"),
    _without("grouped events", "events sent at once"),
    _without("kept client", "a new client for each pipeline"),
    _without("envelope check", "items parsed once"),
    _without("checks", "messages not checked"),
    Part(
        "BaseTask, called, a line for each task",
        "noop",
        beside=OURS.name,
        words=("--loglevel=INFO",),
    ),
    Part(
        "BaseTask, called, a line and its copy in a file",
        "noop",
        {"LOG_DIR": "logs"},
        beside=OURS.name,
        words=("--loglevel=INFO",),
    ),
)


def measure(options: Any) -> Benchmark:
    """All rounds."""
    series = {part.name: Series(part.name, "tasks/s") for part in PARTS}
    cpu: dict[str, list[float]] = {name: [] for name in series}
    with stage() as on:
        for part in alternating(PARTS, options.rounds):
            command.progress(part.name)
            environment = dict(part.environment)
            if "LOG_DIR" in environment:
                environment["LOG_DIR"] = str(on.folder / environment["LOG_DIR"])
            [worker] = OURS_CALLED.workers
            system = replace(
                OURS_CALLED,
                name=part.name,
                workers=((*worker, *part.words),),
                environment=environment,
            )
            tasks_a_second, milliseconds = drain(on, system, part.task, options.n)
            series[part.name].values.append(tasks_a_second)
            cpu[part.name].append(milliseconds)
    for part in PARTS:
        each = series[part.name]
        each.notes["cpu_ms_per_task"] = significant(median(cpu[part.name]))
        if part.beside:
            each.notes["beside"] = part.beside
            each.notes["difference_percent"] = _difference(each, series[part.beside])
    compare(series.values(), {"ratio_to_bare_task": series[BARE.name]})
    cost = -series[OURS.name].notes["difference_percent"]
    said = f"{cost:.1f} %" if cost > 0 else "nothing that can be measured"
    return Benchmark(
        name="overhead",
        title="No-op tasks through our worker",
        series=list(series.values()),
        options={"n": options.n, "rounds": options.rounds, "slots": SLOTS},
        verdict=f"BaseTask costs {said} of the drain rate, "
        f"{'within' if cost <= GOAL_PERCENT else 'ABOVE'} the goal of {GOAL_PERCENT:g} %",
        figures={
            "holds": cost <= GOAL_PERCENT,
            "goal_percent": GOAL_PERCENT,
            "cost_percent": cost,
        },
        notes=[
            "“difference percent” is the drain rate beside the variant named, median of the "
            "rounds: what a part costs where it is added, what it saves where it is left out.",
        ],
    )


def _difference(each: Series, beside: Series) -> float:
    """Per cent of the other's rate, the median of the rounds."""
    pairs = zip(each.values, beside.values, strict=True)
    return round(median(100 * (own / other - 1) for own, other in pairs), 1)


def main() -> int:
    parser = command.parser("bench_overhead", __doc__, n=2000, what="messages in a round")
    options = parser.parse_args()
    found = measure(options)
    command.tell(found, as_json=options.json)
    return 0 if found.figures["holds"] else 1


if __name__ == "__main__":
    sys.exit(run_command(main))
