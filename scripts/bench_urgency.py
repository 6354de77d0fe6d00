"""How long does urgent work wait while a flood of the rest does?

    python -m scripts.bench_urgency                     floods of 10,000 and of 100,000
    python -m scripts.bench_urgency --n 100 --rounds 1 --flood 1000

Time in queue, from the publication to the start of a task, of bookings that come one by one:
with nothing else to do, then while so many tasks wait in each other queue, or twice as many, and
so on, where a system drains them before the last booking has come. Two slots; what
runs in them cannot be interrupted, so a second flood is of tasks of 10 ms. The peers that know
priorities have one flood, of the size of one of our queues (huey, which is fast, of two).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

from app.routing import QUEUES, wire_priority
from scripts.arguments import positive, run_command
from scripts.benchmarks import command
from scripts.benchmarks.backlog import list_of, multiply
from scripts.benchmarks.command import Benchmark
from scripts.benchmarks.ours import SLOW_TASK, name_in
from scripts.benchmarks.runs import BACKLOG, percentile
from scripts.benchmarks.series import Series, alternating, significant
from scripts.benchmarks.stage import SLOTS, WARM_UP, Stage, seconds_for, stage
from scripts.benchmarks.systems import DRAMATIQ, HUEY, OURS_CALLED, RQ, STOCK, System

FLOODS = (10_000, 100_000)
PAUSE_SECONDS = 0.02
"""Between two bookings."""
DOUBLINGS = 6
"""Of a flood that is over before the last urgent task has come."""
_BOOKINGS = next(spec for spec in QUEUES if spec.name == "bookings")
"""The most urgent queue."""
_OTHERS = tuple(spec for spec in QUEUES if spec is not _BOOKINGS)
PEERS = ((STOCK, 1), (DRAMATIQ, 1), (HUEY, 2), (RQ, 1))
"""With the size of each one's flood, in that of one of our queues."""
PRIORITIES = {"BENCH_PRIORITIES": "1"}
OURS = "ours"


class FloodOverError(RuntimeError):
    """A system had drained its flood before the last urgent task came."""


def flood(on: Stage, each: int, *, slow: bool) -> int:
    """Let ``each`` tasks wait in every queue but bookings; how many there are."""
    if not each:
        return 0
    first = [
        (SLOW_TASK if slow else name_in(spec), spec.name, wire_priority(spec.urgency))
        for spec in _OTHERS
    ]
    on.publish(OURS_CALLED, "publish_first", first)
    for spec in _OTHERS:
        multiply(on.redis, list_of(spec), each)
    return each * len(_OTHERS)


def ours(on: Stage, bookings: int, each: int, *, slow: bool = False) -> list[float]:
    """Milliseconds in queue of each booking, with ``each`` tasks waiting in each other queue."""
    on.clear()
    waiting = flood(on, each, slow=slow)
    words = ("publish_paced", name_in(_BOOKINGS), bookings, PAUSE_SECONDS)
    return _waits(on, OURS_CALLED, words, bookings, waiting)


def peer(on: Stage, system: System, bookings: int, backlog: int) -> list[float]:
    """The same of a peer, with one backlog of less urgent tasks."""
    on.clear()
    system = replace(system, environment={**system.environment, **PRIORITIES})
    if backlog:
        limit = seconds_for(backlog)
        on.publish(system, "publish_with_priority", False, backlog, 0.0, timeout=limit)
    words = ("publish_with_priority", True, bookings, PAUSE_SECONDS)
    return _waits(on, system, words, bookings, backlog)


def _of_peer(system: System, bookings: int, on: Stage, backlog: int) -> list[float]:
    return peer(on, system, bookings, backlog)


def _waits(
    on: Stage, system: System, words: tuple[Any, ...], bookings: int, waiting: int
) -> list[float]:
    with ThreadPoolExecutor(1) as publisher:
        # Started before the workers: meanwhile nothing of the flood is drained.
        limit = seconds_for(bookings + waiting)
        publish = partial(on.publish, system, *words, timeout=limit)
        said = publisher.submit(publish, after=WARM_UP) if waiting else None
        with on.working(system, warm=not waiting) as workers:
            if said is None:
                publish()
            else:
                said.result()
            found = on.wait_for_runs(bookings, workers, timeout=limit, backlog=True)
            drained = [run.started_at for run in on.runs.all() if run.published_at == BACKLOG]
    # Who serves the urgent tasks behind the flood has drained it, too.
    last_published = max(run.published_at for run in found)
    if waiting and len(drained) >= waiting and drained[-1] < last_published:
        raise FloodOverError(
            f"the flood of {waiting:,} was over before the last urgent task came: give --flood more"
        )
    return [1000 * run.waited for run in found]


def outlasting(measure: Callable[[int], list[float]], size: int) -> tuple[list[float], int]:
    """What ``measure`` finds in a flood of ``size``, or of the smallest multiple of it by a power
    of 2 that lasts as long as urgent tasks come; and that size."""
    for _ in range(DOUBLINGS):
        try:
            return measure(size), size
        except FloodOverError as error:
            size *= 2
            command.progress(f"{error}: now with {size:,}")
    return measure(size), size


def measure(options: Any) -> Benchmark:
    """All rounds."""
    scenarios: dict[str, tuple[str, int, Callable[[Stage, int], list[float]]]] = {
        "ours, idle": (OURS, 0, lambda on, size: ours(on, options.n, size))
    }
    for each in options.flood:
        scenarios[f"ours, {each:,} in each other queue"] = (
            *(OURS, each),
            lambda on, size: ours(on, options.n, size),
        )
    slow = options.flood[0]
    scenarios[f"ours, {slow:,} of 10 ms in each other queue"] = (
        *(OURS, slow),
        lambda on, size: ours(on, options.n, size, slow=True),
    )
    for system, times in PEERS if options.peers else ():
        backlog = times * min(options.flood)
        for words, number in (("idle", 0), (f"{backlog:,} less urgent", backlog)):
            scenarios[f"{system.name}, {words}"] = (
                *(system.name, number),
                partial(_of_peer, system, options.n),
            )
    series = {name: Series(name, "p99 ms") for name in scenarios}
    middle: dict[str, list[float]] = {name: [] for name in scenarios}
    attempts = command.Attempts()
    with stage() as on:
        for name in alternating(list(scenarios), options.rounds):
            system_name, least, act = scenarios[name]
            size = series[name].notes.get("flood", least)
            found = attempts.measure(
                name, partial(outlasting, partial(act, on), size), ours=system_name == OURS
            )
            if found is None:
                continue
            waits, size = found
            if size != least:
                series[name].notes["flood"] = size
            series[name].values.append(percentile(waits, 99))
            middle[name].append(percentile(waits, 50))
    series = attempts.kept(series)
    idle: dict[str, str] = {}
    for name, (system_name, _, _) in scenarios.items():
        idle.setdefault(system_name, name)
    for name, each in series.items():
        baseline = idle[scenarios[name][0]]
        each.notes["p50_ms"] = significant(median(middle[name]))
        if baseline not in series:
            continue
        each.ratios = {
            "ratio_to_idle": each.median / series[baseline].median,
            "p50_ratio_to_idle": median(middle[name]) / median(middle[baseline]),
        }
    flooded = series[f"ours, {options.flood[0]:,} in each other queue"]
    ratio = flooded.ratios["ratio_to_idle"]
    return Benchmark(
        name="urgency",
        title="Time in queue of urgent tasks",
        series=list(series.values()),
        options={"n": options.n, "rounds": options.rounds, "slots": SLOTS},
        verdict=f"under {options.flood[0]:,} tasks in each other queue a booking's p99 in queue is "
        f"{flooded.median:.1f} ms, {ratio:.2f} times that of an idle system",
        figures={"ratio_to_idle": round(ratio, 3)},
        notes=[
            f"A booking every {PAUSE_SECONDS * 1000:g} ms, {options.n} in a round.",
            "What runs in a slot is not interrupted: in the flood of 10 ms tasks a booking waits "
            "for the first of two slots, between 0 and 10 ms, beside the time of an idle system.",
            "A flood that was over before the last booking came was doubled: see the column flood.",
            *attempts.notes,
            "Taskiq is left out: on Redis it knows no priorities. Dramatiq's order only what a "
            "process has prefetched; RQ's are the order of its queues.",
        ],
    )


def main() -> int:
    parser = command.parser("bench_urgency", __doc__, n=300, what="urgent tasks in a round")
    parser.add_argument("--flood", type=positive, action="append", help="tasks in each other queue")
    parser.add_argument("--without-peers", dest="peers", action="store_false", help="only ours")
    options = parser.parse_args()
    options.flood = options.flood or list(FLOODS)
    command.tell(measure(options), as_json=options.json)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
