"""How fast each system drains a backlog, when nothing may be lost and when it may.

    python -m scripts.bench_drain                        all systems, 5,000 tasks each
    python -m scripts.bench_drain --n 500 --rounds 1 --task noop --settings durable

The backlog is there before the workers start; the rate is that of the starts, without the
first tenth of them. Each system has two processes that run one task at a time, the same
Redis, and no line in its log for a task.
"""

from __future__ import annotations

import sys
from functools import partial
from statistics import median
from typing import Any

from scripts.arguments import run_command
from scripts.benchmarks import command
from scripts.benchmarks.command import Benchmark
from scripts.benchmarks.draining import drain
from scripts.benchmarks.series import Series, alternating, compare, fastest
from scripts.benchmarks.stage import SLOTS, stage
from scripts.benchmarks.systems import DURABLE, FASTEST, STOCK, System

SETTINGS = {"durable": DURABLE, "fastest": FASTEST}
TASKS = {"noop": "no-op", "ten_ms": "10 ms"}


def measure(options: Any) -> list[Benchmark]:
    """One benchmark for each kind of settings and task."""
    found = []
    with stage() as on:
        for settings in options.settings:
            systems = SETTINGS[settings]
            for task in options.task:
                command.progress(f"{settings}, {TASKS[task]}")
                series = {system.name: Series(system.name, "tasks/s") for system in systems}
                cpu: dict[str, list[float]] = {system.name: [] for system in systems}
                attempts = command.Attempts()
                count = options.n if task == "noop" else max(1, options.n // 5)
                for system in alternating(systems, options.rounds):
                    number = max(10, int(count * (system.share if task == "noop" else 1)))
                    name = system.noop if task == "noop" else system.ten_ms
                    drained = attempts.measure(
                        system.name, partial(drain, on, system, name, number), ours=system.ours
                    )
                    if drained is None:
                        continue
                    tasks_a_second, milliseconds = drained
                    each = series[system.name]
                    each.values.append(tasks_a_second)
                    cpu[system.name].append(milliseconds)
                    each.notes["n"] = number
                series = attempts.kept(series)
                for each in series.values():
                    each.notes["cpu_ms_per_task"] = median(cpu[each.name])
                said = _said(settings, task, systems, series, options)
                said.notes.extend(attempts.notes)
                found.append(said)
    return found


def _said(
    settings: str,
    task: str,
    systems: tuple[System, ...],
    series: dict[str, Series],
    options: Any,
) -> Benchmark:
    ours = {system.name for system in systems if system.ours}
    peer = fastest(series.values(), lambda each: each.name not in ours)
    stock = fastest(each for each in series.values() if each.name.startswith(STOCK.name))
    compare(series.values(), {"ratio_to_fastest_peer": peer, "ratio_to_stock_celery": stock})
    best = fastest(series.values(), lambda each: each.name in ours)
    ratio = best.ratios.get("ratio_to_fastest_peer", 0.0) if best else 0.0
    return Benchmark(
        name=f"drain_{settings}_{task}",
        title=f"Draining a backlog of {TASKS[task]} tasks, {_MEANING[settings]}",
        series=list(series.values()),
        options={"n": options.n, "rounds": options.rounds, "slots": SLOTS},
        verdict=f"{TASKS[task]} tasks, {settings}: our best drains {ratio:.2f} times what the "
        f"fastest peer does ({peer.name if peer else 'none'})",
        figures={"ratio_to_fastest_peer": round(ratio, 3)},
        notes=[*_NOTES[settings], *_NOTES_OF_TASKS[task]],
    )


_MEANING = {
    "durable": "settings that survive a SIGKILL",
    "fastest": "the fastest settings, a SIGKILL may lose tasks",
}
_NOTES = {
    "durable": [
        "A test kills the workers of each of these systems while a task runs, and sees it run "
        "again (tests/integration/benchmarks/test_durability.py). Huey is not in this table: on "
        "Redis it has no setting with which a running task survives the SIGKILL of its process.",
        "Only “ours, outbox and guard” also keeps tasks whose Redis was lost, and runs each "
        "effect once: it reads a row and commits one for each task.",
    ],
    "fastest": ["Ours has no outbox here, no late acknowledgement and no task events."],
}
_NOTES_OF_TASKS = {
    "noop": ["A slow system is given fewer tasks: see n."],
    "ten_ms": [
        f"{SLOTS} slots run at most {SLOTS * 100} of these a second, and half of that where one "
        "process has fetched the whole backlog ahead. Each system is given a fifth of --n.",
    ],
}


def main() -> int:
    parser = command.parser(
        "bench_drain", __doc__, n=5000, what="tasks in a round; a fifth of 10 ms ones"
    )
    parser.add_argument("--settings", action="append", choices=[*SETTINGS], help="both by default")
    parser.add_argument("--task", action="append", choices=[*TASKS], help="both by default")
    options = parser.parse_args()
    options.settings = options.settings or [*SETTINGS]
    options.task = options.task or [*TASKS]
    command.tell_all(measure(options), as_json=options.json)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
