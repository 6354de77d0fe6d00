"""How fast is work planned? One by one, in bulk, and through the outbox with its commit.

    python -m scripts.bench_enqueue --n 2000

One process publishes; nobody works. A row of the outbox is committed before its message
goes out, on SQLite and on a PostgreSQL server of the benchmark's own.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from typing import Any

from scripts.arguments import run_command
from scripts.benchmarks import command
from scripts.benchmarks.command import Benchmark
from scripts.benchmarks.databases import KINDS
from scripts.benchmarks.series import Series, alternating, compare, fastest
from scripts.benchmarks.stage import Stage, seconds_for, stage
from scripts.benchmarks.systems import DRAMATIQ, HUEY, OURS_CALLED, RQ, STOCK, TASKIQ, System

TASK = "scripts.benchmarks.noop"


@dataclass(frozen=True)
class Way:
    """One way to enqueue."""

    name: str
    system: System
    function: str
    task: str = TASK
    ours: bool = True


CALLS = (
    Way("ours, celery call, one by one", OURS_CALLED, "call_one_by_one"),
    Way("ours, celery call, in bulk", OURS_CALLED, "call"),
)
OUTBOX = (
    Way("ours, outbox, a commit for each", OURS_CALLED, "enqueue_one_by_one"),
    Way("ours, outbox, one commit", OURS_CALLED, "enqueue"),
    Way(
        "ours, outbox, one commit, to be published by the pump", OURS_CALLED, "enqueue_for_the_pump"
    ),
)
IN_BULK = "ours, outbox, one commit, "
PEERS = tuple(
    Way(f"{system.name}, {words}", system, "publish", "noop", ours=False)
    for system, words in (
        (STOCK, "one by one"),
        (DRAMATIQ, "one by one"),
        (HUEY, "one by one"),
        (TASKIQ, "one by one"),
        (RQ, "in bulk"),
    )
)


def enqueue(on: Stage, way: Way, count: int) -> float:
    """Tasks a second."""
    on.clear()
    said = on.publish(way.system, way.function, way.task, count, timeout=seconds_for(count))
    return float(count / (said["ended"] - said["began"]))


def measure(options: Any) -> Benchmark:
    """All rounds; the outbox on each database."""
    series: dict[str, Series] = {}
    ours: list[str] = []
    attempts = command.Attempts()
    for database in options.database:
        ways = (*OUTBOX, *CALLS, *PEERS) if database == options.database[0] else OUTBOX
        with stage(database=database) as on:
            for way in alternating(ways, options.rounds):
                name = f"{way.name}, {database}" if way in OUTBOX else way.name
                found = attempts.measure(name, partial(enqueue, on, way, options.n), ours=way.ours)
                if found is not None:
                    series.setdefault(name, Series(name, "tasks/s")).values.append(found)
                if way.ours:
                    ours.append(name)
    series = attempts.kept(series)
    peer = fastest(series.values(), lambda each: each.name not in ours)
    stock = series.get(PEERS[0].name)
    compare(series.values(), {"ratio_to_fastest_peer": peer, "ratio_to_stock_celery": stock})
    best = fastest(series.values(), lambda each: each.name in {IN_BULK + kind for kind in KINDS})
    bulk = series[CALLS[1].name]
    one = series[f"{OUTBOX[0].name}, {options.database[0]}"]
    assert best is not None  # noqa: S101 - it is always measured
    return Benchmark(
        name="enqueue",
        title="Enqueueing no-op tasks from one process",
        series=list(series.values()),
        options={"n": options.n, "rounds": options.rounds},
        verdict=f"the outbox plans {best.median:,.0f} tasks a second in one commit ({best.name}), "
        f"and with a commit for each {one.ratios.get('ratio_to_stock_celery', 0.0):.2f} times what "
        "stock Celery sends one by one, without any",
        figures={key: round(value, 3) for key, value in bulk.ratios.items()},
        notes=[
            "The first task of a process connects; that is part of the figures.",
            "PostgreSQL runs with fsync off, as the tests' server does: on a real disk each "
            "commit waits for it as well.",
            *attempts.notes,
            "In the JSON, the ratios beside the series are those of “ours, celery call, in bulk”.",
        ],
    )


def main() -> int:
    parser = command.parser("bench_enqueue", __doc__, n=2000, what="tasks in a round")
    parser.add_argument("--database", action="append", choices=KINDS, help="both by default")
    options = parser.parse_args()
    options.database = options.database or list(KINDS)
    command.tell(measure(options), as_json=options.json)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
