"""Show that urgent work goes first, however long the backlog of the rest is.

    python -m scripts.prove_urgency --backlog 10000

Prints in which order one worker with one slot serves all seven queues, and how many tasks
of a backlog of analytics it starts between the publication of a booking's task and that
task. Exit status 0 only where the order is that of urgency and nothing comes between.
"""

from __future__ import annotations

import json
import sys
from time import monotonic

import redis

from app import db, outbox
from app.routing import QUEUES, QueueSpec, wire_priority
from scripts.arguments import command, number, run_command
from scripts.live import jobs
from scripts.live.deployment import Deployment
from scripts.live.job_bench import JobBench, job_bench
from scripts.live.queue_jobs import name_of
from scripts.live.redis_server import RedisServer

APP = "scripts.live.queue_jobs"
EACH = 3
"""Tasks in each queue, to see the order."""
JOB_SECONDS = 0.5
"""How long a task of the backlog takes: time to publish while it runs."""
PATIENCE = 120.0
OVERTAKING_SECONDS = 20.0
"""Who is not started by then was not the next one."""
STARTED_FIRST = 3

_BY_NAME = {spec.name: spec for spec in QUEUES}
_LEAST_URGENT_FIRST = sorted(QUEUES, key=lambda spec: spec.urgency)


def order_of_queues(bench: JobBench) -> list[str]:
    """The queues of tasks that waited together, in the order of their starts.

    They are published the least urgent first; one slot serves them.
    """
    for spec in _LEAST_URGENT_FIRST:
        _enqueue(spec, [f"{spec.name} {number}" for number in range(EACH)])
    bench.live.app = APP
    worker = bench.live.start_worker(name="order", concurrency=1)
    bench.wait_for_effects(EACH * len(QUEUES), timeout=PATIENCE)
    worker.terminate()
    return [job.split()[0] for job in jobs.start_order()]


def is_by_urgency(queues: list[str]) -> bool:
    """Whether no queue came before a more urgent one."""
    urgencies = [_BY_NAME[name].urgency for name in queues]
    return urgencies == sorted(urgencies, reverse=True)


def started_between(bench: JobBench, *, backlog: int) -> tuple[list[str], int]:
    """What was started after a booking's task was published and before it was.

    One worker with one slot works at ``backlog`` tasks of analytics meanwhile. Also
    returns how many of them still waited in their lists then.
    """
    _enqueue(_BY_NAME["analytics"], [f"backlog-{number}" for number in range(backlog)], JOB_SECONDS)
    bench.live.app = APP
    worker = bench.live.start_worker(name="backlog", concurrency=1)
    before = len(jobs.start_order())
    bench.wait_until(lambda: len(jobs.start_order()) >= before + STARTED_FIRST, timeout=PATIENCE)
    running = len(jobs.start_order())
    bench.wait_until(lambda: len(jobs.start_order()) > running, timeout=PATIENCE)
    # One has just been started: the slot is taken while the booking is published.
    seen = len(jobs.start_order())
    _enqueue(_BY_NAME["bookings"], ["urgent"])
    try:
        bench.wait_for_start("urgent", timeout=OVERTAKING_SECONDS)
        order = jobs.start_order()
    except TimeoutError:
        order = [*jobs.start_order(), "nothing", "urgent"]
    waiting = _waiting(bench.live.redis_url, "analytics")
    worker.kill()
    return order[seen : order.index("urgent")], waiting


def _enqueue(spec: QueueSpec, names: list[str], *args: float) -> None:
    with db.transaction() as session:
        for name in names:
            outbox.enqueue(session, name_of(spec), name, *args)


def _waiting(url: str, queue: str) -> int:
    with redis.Redis.from_url(url) as client:
        return sum(client.llen(key) for key in client.scan_iter(f"{queue}*", _type="list"))


def main() -> int:
    parser = command("prove_urgency", __doc__)
    parser.add_argument(
        "--backlog", type=number(STARTED_FIRST + 2), default=10_000, help="how many (10000)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for machines")
    options = parser.parse_args()
    started = monotonic()
    with (
        RedisServer() as server,
        Deployment(redis_url=server.url) as live,
        job_bench(live) as bench,
    ):
        order = order_of_queues(bench)
        between, waiting = started_between(bench, backlog=options.backlog)
    by_urgency = is_by_urgency(order)
    holds = by_urgency and not between
    seconds = monotonic() - started
    if options.json:
        told = {
            "holds": holds,
            "order": order,
            "by_urgency": by_urgency,
            "backlog": options.backlog,
            "waiting": waiting,
            "started_between": len(between),
            "seconds": round(seconds, 1),
        }
        print(json.dumps(told, indent=2))
        return 0 if holds else 1
    print(f"urgency {'holds' if holds else 'does NOT hold'}, in {seconds:.0f} s")
    print(f"one slot, {EACH} tasks in each queue, published the least urgent first; started:")
    for name in order:
        urgency = _BY_NAME[name].urgency
        print(f"  urgency {urgency}, {wire_priority(urgency)} on the wire   {name}")
    print(
        f"a booking published while {waiting:,} of {options.backlog:,} analytics tasks wait: "
        f"{len(between)} of them started before it"
    )
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(run_command(main))
