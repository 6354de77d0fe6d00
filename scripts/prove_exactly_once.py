"""Count the effects of durable jobs while workers, connections and Redis are killed.

    python -m scripts.prove_exactly_once --jobs 6000 --rounds 10

Prints a row for each round and the count at the end; exit status 0 only where every job
had its effect exactly once. The effects are rows of a table without a unique key.
"""

from __future__ import annotations

import sys
from time import monotonic, sleep

from app.models import OutboxEntry
from scripts.arguments import command, positive, run_command
from scripts.live import jobs
from scripts.live.deployment import Deployment
from scripts.live.job_bench import JobBench, job_bench
from scripts.live.redis_server import RedisServer

ROUND_SECONDS = 2.0
DRAIN_SECONDS = 300.0
# A dead worker's messages come back sooner than in production, so that the rounds are short.
ENVIRONMENT = {"VISIBILITY_TIMEOUT_SECONDS": "10", "LEASE_INTERVAL_SECONDS": "2"}


def main() -> int:
    parser = command("prove_exactly_once", __doc__)
    parser.add_argument("--jobs", type=positive, default=6000, help="how many jobs (6000)")
    parser.add_argument("--rounds", type=positive, default=10, help="how many rounds of kills (10)")
    options = parser.parse_args()
    with (
        RedisServer() as redis_server,
        Deployment(redis_url=redis_server.url, environment=ENVIRONMENT) as live,
        job_bench(live) as bench,
    ):
        started = monotonic()
        print(f"{'round':>6} {'planned':>8} {'effects':>8} {'doubled':>8} {'resent':>7}  killed")
        for number in range(options.rounds):
            _round(bench, redis_server, number, jobs_planned=options.jobs, rounds=options.rounds)
        live.start_worker(name="last")
        try:
            bench.wait_for_effects(options.jobs, timeout=DRAIN_SECONDS)
        except TimeoutError as error:
            print(error)
        _row(bench, "end", options.jobs, "nothing")
        return _verdict(options.jobs, seconds=monotonic() - started)


def _round(
    bench: JobBench, redis_server: RedisServer, number: int, *, jobs_planned: int, rounds: int
) -> None:
    first, after = (jobs_planned * n // rounds for n in (number, number + 1))
    beat = bench.live.start_beat(name=f"beat-{number}")
    worker = bench.live.start_worker(name=f"worker-{number}")
    bench.enqueue_many("effect", after - first, first=first)
    sleep(ROUND_SECONDS / 2)
    killed = ["connections", "worker"]
    with redis_server.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)
        if number == rounds // 2:
            client.flushall()
            killed.append("all of Redis's data")
    sleep(ROUND_SECONDS / 2)
    worker.kill()
    if number < rounds - 1:
        beat.kill()
        killed.append("beat")
    _row(bench, str(number + 1), after, ", ".join(killed))


def _row(bench: JobBench, name: str, planned: int, killed: str) -> None:
    effects = jobs.effects()
    doubled = effects.total() - len(effects)
    resent = bench.total(OutboxEntry.resent)
    print(
        f"{name:>6} {planned:>8} {len(effects):>8} {doubled:>8} {resent:>7}  {killed}", flush=True
    )


def _verdict(planned: int, *, seconds: float) -> int:
    effects = jobs.effects()
    lost, doubled = planned - len(effects), effects.total() - len(effects)
    verdict = "exactly once" if lost == doubled == 0 else "NOT exactly once"
    print(
        f"{verdict}: {planned} jobs, {effects.total()} effects, "
        f"{lost} lost, {doubled} doubled, in {seconds:.0f} s"
    )
    return 0 if lost == doubled == 0 else 1


if __name__ == "__main__":
    sys.exit(run_command(main))
