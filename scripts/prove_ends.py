"""Let attempts end in every way, many times on every pool, and count what is left.

    python -m scripts.prove_ends --times 20
    python -m scripts.prove_ends --times 3 --pools threads,gevent

Prints a row for each end: starts, the entry's final state, and the slots of its worker that
still work. Exit status 0 only where every entry ended as docs/guarantees.md says, with as
many starts, and every slot came back.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from time import monotonic

from app.models import OutboxState
from scripts.arguments import command, positive, run_command
from scripts.live.deployment import Deployment
from scripts.live.ending_bench import Case, EndingBench, cases
from scripts.live.ending_jobs import POOLS, SETTINGS
from scripts.live.job_bench import job_bench
from scripts.live.redis_server import RedisServer

SLOTS = 4
PATIENCE = 30.0
"""Seconds without another end, after which the missing ones do not come."""


def main() -> int:
    parser = command("prove_ends", __doc__)
    parser.add_argument("--times", type=positive, default=20, help="of each end (20)")
    parser.add_argument(
        "--pools", type=_pools, default=POOLS, help=f"names with commas between ({','.join(POOLS)})"
    )
    options = parser.parse_args()
    began = monotonic()
    wrong = 0
    for pool in options.pools:
        with (
            RedisServer() as redis_server,
            Deployment(redis_url=redis_server.url, environment=SETTINGS) as live,
            job_bench(live) as bench,
        ):
            ends = EndingBench(bench, pool, SLOTS)
            live.start_beat()
            wrong += _prove(ends, options.times)
    verdict = "every attempt ended" if not wrong else f"NOT proven: {wrong} rows are wrong"
    print(f"{verdict}, in {monotonic() - began:.0f} s")
    return 0 if not wrong else 1


def _prove(ends: EndingBench, times: int) -> int:
    """Run every end on one pool; how many of the rows are wrong."""
    sent = cases(ends.pool, times=times)
    ends.send(sent)
    ends.wait(patience=PATIENCE)
    starts, entries = ends.starts(), ends.states()
    slots, alive = ends.slots_left(), ends.worker.alive
    lost = ends.slots - slots
    print(
        f"\n{ends.pool}: {slots} of {ends.slots} slots left, {ends.unacknowledged()} messages "
        f"held, the worker {'lives' if alive else 'is DEAD'}"
    )
    print(f"  {'end':<32} {'message':<9} {'runs':>5} {'starts':>7}  final state")
    rows: dict[tuple[str, bool], list[Case]] = {}
    for case in sent:
        rows.setdefault((case.name, case.with_entry), []).append(case)
    wrong = (lost > 0) + (not alive)
    for (name, with_entry), of_row in rows.items():
        found: Counter[str] = Counter()
        for case in of_row:
            entry = entries[case]
            found["no entry" if entry is None else entry.state.value] += 1
        started = sum(starts[case] for case in of_row)
        states = ", ".join(f"{number} {state}" for state, number in sorted(found.items()))
        end = of_row[0].end
        final = "no entry" if end.state is OutboxState.DONE and not with_entry else end.state.value
        right = found == {final: len(of_row)} and started == end.starts * len(of_row)
        wrong += not right
        message = "entry" if with_entry else "no entry"
        mark = "" if right else f"   WRONG: {end.starts * len(of_row)} starts, {final}"
        print(f"  {name:<32} {message:<9} {len(of_row):>5} {started:>7}  {states}{mark}")
    sys.stdout.flush()
    return wrong


def _pools(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    unknown = [name for name in names if name not in POOLS]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"{unknown[0]} is not a pool: use some of {','.join(POOLS)}"
        )
    return names


if __name__ == "__main__":
    sys.exit(run_command(main))
