"""What BaseTask costs beside a bare celery.Task: no-op tasks, the same worker, in turns.

    python -m scripts.bench_overhead --n 2000 --rounds 5
    python -m scripts.bench_overhead --pool solo          one process: nothing hides the cost

The worker is stopped (SIGSTOP) while the messages are put into its queue, so a round measures
how fast it drains them and nothing else. A message is what ``celery call`` sends; the cost is
that of the base class. Then the same through the outbox, which is no base class's cost but
what the promise costs: a row that is read, marked done in a transaction and published.
Exit status 0 only where BaseTask costs at most the goal.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from time import monotonic, perf_counter, sleep
from typing import Any
from uuid import uuid4

import psutil
import redis

from app import db, outbox
from app.routing import queue_for, wire_priority
from scripts.live import noop_jobs
from scripts.live.deployment import Deployment
from scripts.live.job_bench import JobBench, job_bench
from scripts.live.processes import Process
from scripts.live.redis_server import RedisServer

GOAL_PERCENT = 10.0
POLL_SECONDS = 0.01
LIMIT_SECONDS = 300.0
BARE, OURS, GUARDED = (task.name for task in (noop_jobs.bare, noop_jobs.ours, noop_jobs.guarded))
# A worker that is stopped renews no lease.
ENVIRONMENT = {"VISIBILITY_TIMEOUT_SECONDS": "600", "LEASE_INTERVAL_SECONDS": "60", "LOG_DIR": ""}


@dataclass
class Variant:
    """One way to run a task, and how many a second were drained in each round."""

    name: str
    publish: Callable[[int], None]
    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    """Milliseconds of processor time a task, of the worker and its children: on a busy
    machine this tells more."""

    @property
    def rate(self) -> float:
        return median(self.rates)

    def cost(self, beside: Variant) -> list[float]:
        """Per cent of the other's rate, round by round."""
        return [
            100 * (1 - ours / theirs) for ours, theirs in zip(self.rates, beside.rates, strict=True)
        ]


class Bench:
    """A worker, its Redis, and messages for it."""

    def __init__(self, jobs: JobBench, client: redis.Redis, worker: Process) -> None:
        self._jobs = jobs
        self._client = client
        self._worker = worker

    def call(self, task: str) -> Callable[[int], None]:
        """Publishes as ``celery call`` does, but many in one pipeline."""

        def publish(count: int) -> None:
            app: Any = noop_jobs.celery_app
            with app.producer_pool.acquire(block=True) as producer, producer.batch(count):
                for _ in range(count):
                    app.send_task(task, task_id=str(uuid4()), ignore_result=True, producer=producer)

        return publish

    def enqueue(self, task: str) -> Callable[[int], None]:
        """Plans through the outbox, which publishes after the commit."""

        def publish(count: int) -> None:
            with db.transaction() as session:
                for _ in range(count):
                    outbox.enqueue(session, task)

        return publish

    def measure(self, variant: Variant, count: int) -> None:
        """Let the worker drain ``count`` messages, and note how fast it was."""
        self._worker.signal(signal.SIGSTOP)
        try:
            variant.publish(count)
            waiting = self._left()
            if waiting < count - 1:  # a worker that is stopped may have one in its hands
                raise RuntimeError(f"{variant.name}: only {waiting} of {count} were published")
        finally:
            self._worker.signal(signal.SIGCONT)
        began, used = perf_counter(), self._cpu_seconds()
        until = monotonic() + LIMIT_SECONDS
        while self._left():
            if monotonic() > until:
                raise TimeoutError(f"{variant.name}: not drained in {LIMIT_SECONDS:g} s")
            sleep(POLL_SECONDS)
        variant.rates.append(count / (perf_counter() - began))
        variant.cpu.append(1000 * (self._cpu_seconds() - used) / count)

    def _cpu_seconds(self) -> float:
        main = psutil.Process(self._worker.pid)
        times = [process.cpu_times() for process in (main, *main.children(recursive=True))]
        return sum(time.user + time.system for time in times)

    def _left(self) -> int:
        queue = queue_for(BARE)
        priority = wire_priority(queue.urgency)
        key = f"{queue.name}\x06\x16{priority}" if priority else queue.name
        with self._client.pipeline(transaction=False) as pipe:
            pipe.llen(key)
            pipe.hlen("unacked")
            return sum(pipe.execute())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--n", type=_positive, default=2000, help="messages in a round (2000)")
    parser.add_argument("--rounds", type=_at_least_three, default=5, help="of each variant (5)")
    parser.add_argument("--pool", default="prefork", choices=["prefork", "solo", "threads"])
    parser.add_argument("--concurrency", type=_positive, default=2, help="slots (2)")
    parser.add_argument("--json", action="store_true", help="print JSON, for machines")
    options = parser.parse_args()
    with (
        RedisServer() as server,
        Deployment(redis_url=server.url, environment=ENVIRONMENT) as live,
        job_bench(live) as jobs,
        server.client() as client,
    ):
        live.app = noop_jobs.__name__
        worker = live.start_worker(
            "--without-mingle",
            "--without-gossip",
            pool=options.pool,
            concurrency=options.concurrency,
            queues=[queue_for(BARE).name],
        )
        bench = Bench(jobs, client, worker)
        bare, ours, row, guard = variants = (
            Variant("celery.Task, called", bench.call(BARE)),
            Variant("BaseTask, called", bench.call(OURS)),
            Variant("BaseTask, with a row", bench.enqueue(OURS)),
            Variant("BaseTask, with a row and its guard", bench.enqueue(GUARDED)),
        )
        for variant in variants:
            bench.measure(variant, max(1, options.n // 10))
            variant.rates.clear()
            variant.cpu.clear()
        for number in range(options.rounds):
            # Each goes first as often as last: the machine is not the same all the time.
            for variant in variants if number % 2 == 0 else reversed(variants):
                bench.measure(variant, options.n)
    found = _found(options, bare, [ours, row, guard])
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        _tell(found)
    return 0 if found["holds"] else 1


def _found(options: argparse.Namespace, bare: Variant, others: list[Variant]) -> dict[str, Any]:
    cost = median(others[0].cost(bare))
    return {
        "holds": cost <= GOAL_PERCENT,
        "goal_percent": GOAL_PERCENT,
        "cost_percent": round(cost, 1),
        "n": options.n,
        "rounds": options.rounds,
        "pool": options.pool,
        "concurrency": options.concurrency,
        "variants": [
            {
                "name": variant.name,
                "per_second": round(variant.rate, 1),
                "slowest": round(min(variant.rates), 1),
                "fastest": round(max(variant.rates), 1),
                "cost_percent": round(median(variant.cost(bare)), 1),
                "least_cost_percent": round(min(variant.cost(bare)), 1),
                "most_cost_percent": round(max(variant.cost(bare)), 1),
                "cpu_milliseconds": round(median(variant.cpu), 3),
            }
            for variant in [bare, *others]
        ],
    }


def _tell(found: dict[str, Any]) -> None:
    verdict = "within" if found["holds"] else "ABOVE"
    print(
        f"BaseTask costs {found['cost_percent']:.1f} % of the drain rate, {verdict} the goal of "
        f"{found['goal_percent']:g} %"
    )
    print(
        f"{found['rounds']} rounds of {found['n']:,} no-op tasks each, in turns; "
        f"{found['pool']} pool, {found['concurrency']} slots"
    )
    print()
    print(
        f"{'':<36}{'tasks/s':>9}{'slowest':>9}{'fastest':>9}{'cost':>9}{'from':>9}{'to':>9}{'CPU':>9}"
    )
    for variant in found["variants"]:
        print(
            f"{variant['name']:<36}{variant['per_second']:>9.0f}{variant['slowest']:>9.0f}"
            f"{variant['fastest']:>9.0f}{variant['cost_percent']:>7.1f} %"
            f"{variant['least_cost_percent']:>7.1f} %{variant['most_cost_percent']:>7.1f} %"
            f"{variant['cpu_milliseconds']:>6.2f} ms"
        )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def _at_least_three(text: str) -> int:
    number = int(text)
    if number < 3:
        raise argparse.ArgumentTypeError(f"{number} rounds are too few to tell: at least 3")
    return number


if __name__ == "__main__":
    sys.exit(main())
