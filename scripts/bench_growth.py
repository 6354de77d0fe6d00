"""Does it stay as fast when ever more waits? From 1,000 to 1,000,000 messages and rows.

    python -m scripts.bench_growth
    python -m scripts.bench_growth --n 10000 --rounds 1          up to 10,000
    python -m scripts.bench_growth --only relay --database postgresql

At each size so many rows of the outbox are done, a tenth of that is pending, and so many
messages wait. Then: beat's tick, the pump's look for messages that are gone, a batch of the
cleanup, a worker's rate on the backlog, and the memory of each process and of Redis.

From 10,000 on: the relay's rate where so many entries are due at one instant, and how long an
urgent entry waits that is planned behind them.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from datetime import timedelta
from functools import partial
from statistics import median
from typing import Any

import psutil
from sqlalchemy import func, insert, literal, select

from app import clock, db
from app.models import OUTBOX_ENTRIES, OutboxState
from app.routing import QUEUES, wire_priority
from scripts.arguments import run_command
from scripts.benchmarks import command
from scripts.benchmarks.backlog import list_of, multiply
from scripts.benchmarks.command import Benchmark
from scripts.benchmarks.databases import KINDS
from scripts.benchmarks.ours import name_in
from scripts.benchmarks.runs import rate
from scripts.benchmarks.series import Series, alternating
from scripts.benchmarks.stage import Stage, stage
from scripts.benchmarks.systems import OURS_CALLED
from scripts.live.processes import Process

SMALLEST = 1000
STEP = 10
PENDING_SHARE = 10
"""One pending row for so many that are done."""
TICKS = 20
CLEANUP_BATCHES = 3
DRAINED = 500
LIMIT_SECONDS = 120.0
LEAST_DUE = 10_000
RELAYED_BATCHES = 12
URGENT_ENTRIES = 2
"""Each takes up to three more batches: the smallest backlog has 20."""
RELAY = "relay's rate, all due at once"
RELAY_CPU = "processor time for each of them"
URGENT = "urgent entry's wait behind them"
_QUEUE = next(spec for spec in QUEUES if spec.name == "analytics")
_BLOCK = 1000

UNITS = {
    "beat's tick": "ms",
    "look-up of what is gone": "ms",
    "cleanup of 1,000 rows": "ms",
    "worker's rate": "tasks/s",
    RELAY: "entries/s",
    RELAY_CPU: "ms",
    URGENT: "ms",
    "beat's memory": "MB",
    "worker's memory": "MB",
    "Redis's memory per message": "bytes",
}


def rows(done: int, pending: int) -> None:
    """So many rows of the outbox, the pending ones published a moment ago."""
    _insert(done, "done", state=OutboxState.DONE, finished_at=clock.utcnow() - timedelta(days=8))
    _insert(pending, "pending", state=OutboxState.PENDING, finished_at=None)


def due_at_once(count: int) -> None:
    """So many entries that are due at one instant and wait for the relay."""
    _insert(count, "due", state=OutboxState.PENDING, published_at=None, publishes=0)


def _insert(count: int, prefix: str, **values: Any) -> None:
    now = clock.utcnow() + timedelta(hours=1)
    block = [
        {
            "id": f"{_started(prefix, 0)}{number:04}",
            "task": name_in(_QUEUE),
            "args": [0.0],
            "kwargs": {},
            "queue": _QUEUE.name,
            "priority": wire_priority(_QUEUE.urgency),
            "created_at": now - timedelta(days=9),
            "due_at": now - timedelta(days=9),
            # Younger than the messages: what waits in its list must not look gone.
            "published_at": now,
            "publishes": 1,
            **values,
        }
        for number in range(min(count, _BLOCK))
    ]
    columns = [each for each in OUTBOX_ENTRIES.c if each.name != "id"]
    number_of = func.substr(OUTBOX_ENTRIES.c.id, len(_started(prefix, 0)) + 1)
    with db.transaction() as session:
        session.execute(insert(OUTBOX_ENTRIES), block)
        # A range: PostgreSQL reads the whole table for a list of so many ids.
        first = OUTBOX_ENTRIES.c.id.between(block[0]["id"], block[-1]["id"])
        for copy in range(1, -(-count // _BLOCK)):
            chosen = select(literal(_started(prefix, copy)) + number_of, *columns).where(first)
            session.execute(
                insert(OUTBOX_ENTRIES).from_select(["id", *(each.name for each in columns)], chosen)
            )


def _started(prefix: str, copy: int) -> str:
    """How the ids of a block begin. What is planned later has the greater id, as with the
    outbox's UUIDv7: what is deleted together lies together in the index."""
    return f"{prefix}-{copy:06}-"


def grown(on: Stage, size: int) -> dict[str, float]:
    """One round at one size."""
    found: dict[str, float] = {}
    on.clear(template=_template(size))
    before = _redis_bytes(on)
    on.publish(OURS_CALLED, "publish_stamped", name_in(_QUEUE))
    multiply(on.redis, list_of(_QUEUE), size)
    found["Redis's memory per message"] = (_redis_bytes(on) - before) / size
    ticks = on.publish(OURS_CALLED, "ticks", TICKS)
    found["beat's tick"] = 1000 * median(ticks["result"])
    found["beat's memory"] = ticks["peak_mb"]
    looked = on.publish(OURS_CALLED, "resend_look_ups", TICKS)
    found["look-up of what is gone"] = 1000 * median(looked["result"])
    if on.redis.llen(list_of(_QUEUE)) != size:
        raise RuntimeError("beat took messages that wait for messages that are gone")
    if size > CLEANUP_BATCHES * _BLOCK:
        swept = on.publish(OURS_CALLED, "cleanup_batches", CLEANUP_BATCHES)
        found["cleanup of 1,000 rows"] = 1000 * median(swept["result"])

    on.redis.flushall()
    on.publish(OURS_CALLED, "publish_first", [("scripts.benchmarks.noop", "celery", 4)])
    multiply(on.redis, _DEFAULT_LIST, size)
    drained = min(size, DRAINED)
    with on.working(OURS_CALLED, warm=False) as workers:
        runs = on.wait_for_runs(drained, workers, timeout=LIMIT_SECONDS)
        found["worker's memory"] = _memory_mb(workers)
    found["worker's rate"] = rate(runs)
    return found


def relayed(on: Stage, size: int) -> dict[str, float]:
    """One round of the relay with so many entries due at one instant."""
    on.clear(template=_due_template(size))
    ran = on.publish(OURS_CALLED, "relay_backlog", RELAYED_BATCHES, URGENT_ENTRIES)["result"]
    return {RELAY: ran["rate"], RELAY_CPU: ran["cpu_ms"], URGENT: 1000 * max(ran["waits"])}


def _due_template(size: int) -> str:
    return f"due{size}"


_DEFAULT_LIST = list_of(next(spec for spec in QUEUES if spec.name == "celery"))


def _template(size: int) -> str:
    return f"rows{size}"


def _redis_bytes(on: Stage) -> int:
    return int(on.redis.info("memory")["used_memory"])


def _memory_mb(workers: list[Process]) -> float:
    """What the processes have to themselves (USS), in MB."""
    mains = [psutil.Process(worker.pid) for worker in workers]
    every = [*mains, *(child for main in mains for child in main.children(recursive=True))]
    return sum(each.memory_full_info().uss for each in every) / 2**20


def measure(options: Any) -> Benchmark:
    """All rounds at all sizes."""
    sizes = []
    size = SMALLEST
    while size <= options.n:
        sizes.append(size)
        size *= STEP
    values: dict[tuple[str, int], list[float]] = defaultdict(list)
    grown_sizes = sizes if options.only is None else []
    due_sizes = [each for each in sizes if each >= LEAST_DUE]
    with stage(database=options.database) as on:
        for each in grown_sizes:
            command.progress(f"{each:,} rows")
            on.databases.make(_template(each), partial(rows, each, each // PENDING_SHARE))
        for each in alternating(grown_sizes, options.rounds):
            command.progress(f"{each:,} messages and rows")
            for name, value in grown(on, each).items():
                values[name, each].append(value)
        for each in due_sizes:
            command.progress(f"{each:,} entries due at one instant")
            on.databases.make(_due_template(each), partial(due_at_once, each))
        for each in alternating(due_sizes, options.rounds):
            command.progress(f"the relay, {each:,} due at one instant")
            for name, value in relayed(on, each).items():
                values[name, each].append(value)
    series = []
    for name, unit in UNITS.items():
        smallest: Series | None = None
        for each in sizes:
            if (name, each) not in values:
                continue
            one = Series(f"{name}, {each:,}", unit, values[name, each])
            smallest = smallest or one
            one.ratios["ratio_to_smallest"] = one.median / smallest.median
            series.append(one)
    # The last one of each name is that of the largest size.
    largest = {
        key: each.ratios["ratio_to_smallest"]
        for each in series
        for key in ("tick", "look-up", "cleanup", "relay", "urgent")
        if key in each.name
    }
    said, notes = [], []
    title = f"As messages and rows grow, on {options.database}"
    if grown_sizes:
        notes += [
            "Beat's memory is the peak of a process that ticks, without Celery's banner and "
            "signals. The worker's is what its processes have to themselves after "
            f"{DRAINED} tasks.",
            f"The tick and the look-up are medians of {TICKS}.",
        ]
        said.append(
            f"with {sizes[-1]:,} rows and messages beat's tick takes {largest['tick']:.1f} times, "
            f"and the look-up of what is gone {largest['look-up']:.1f} times what they take with "
            f"{sizes[0]:,}"
        )
    else:
        title = f"The relay, as ever more is due at one instant, on {options.database}"
    if due_sizes:
        notes.append(
            f"The relay's rate is that of {RELAYED_BATCHES} batches, pushed to Redis, and the "
            "processor time that of its process, without the servers'. The urgent "
            f"entry's wait is the longest of {URGENT_ENTRIES}, from its due instant until it is "
            "pushed: the rest of one batch, and its own."
        )
        said.append(
            f"With {due_sizes[-1]:,} entries due at one instant the relay publishes "
            f"{largest['relay']:.2f} times as many a second, and an urgent entry waits "
            f"{largest['urgent']:.2f} times as long as with {due_sizes[0]:,}"
        )
    return Benchmark(
        name="growth",
        title=title,
        series=series,
        options={"n": options.n, "rounds": options.rounds, "database": options.database},
        verdict=". ".join(said),
        figures={"ratio_to_smallest": {name: round(each, 2) for name, each in largest.items()}},
        notes=notes,
    )


def main() -> int:
    parser = command.parser(
        "bench_growth", __doc__, n=1_000_000, what="the largest size", least=SMALLEST
    )
    parser.add_argument("--database", choices=KINDS, default="sqlite")
    parser.add_argument("--only", choices=("relay",), help="measure this part alone")
    options = parser.parse_args()
    if options.only and options.n < LEAST_DUE:
        parser.error(f"--only {options.only} needs --n {LEAST_DUE} or more")
    command.tell(measure(options), as_json=options.json)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
