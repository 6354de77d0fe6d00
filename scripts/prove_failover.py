"""Count the effects of durable jobs while sentinels replace a lost master, again and again.

    python -m scripts.prove_failover --jobs 3000 --rounds 3

Each round loses the master under load, in one of three ways in turn: SIGKILL; SIGKILL while
its replica is behind, so that the last writes are gone; SIGSTOP (a hung one, which comes
back and still takes itself for the master). Prints a row for each round and the
count at the end; exit status 0 only where every job had its effect exactly once. The
effects are rows of a table without a unique key.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from time import monotonic, sleep

from app.models import OutboxEntry, OutboxState
from scripts.arguments import command, positive, run_command
from scripts.live import jobs
from scripts.live.deployment import Deployment
from scripts.live.job_bench import JobBench, job_bench
from scripts.live.sentinels import SentinelledRedis

LOAD_SECONDS = 1.0
HUNG_SECONDS = 3.0
DRAIN_SECONDS = 300.0
WAYS = ("killed", "behind", "hung")


def main() -> int:
    parser = command("prove_failover", __doc__)
    parser.add_argument("--jobs", type=positive, default=3000, help="how many jobs (3000)")
    parser.add_argument(
        "--rounds", type=positive, default=3, help="how often the master is lost (3)"
    )
    options = parser.parse_args()
    with (
        SentinelledRedis() as redis,
        Deployment(redis_url=redis.url, environment=redis.environment) as live,
        job_bench(live) as bench,
    ):
        processes = [live.start_worker(), live.start_beat()]
        started = monotonic()
        print(
            f"{'round':>6} {'planned':>8} {'effects':>8} {'doubled':>8} {'resent':>7} "
            f"{'again':>6} {'failover':>9} {'drained':>8}  master"
        )
        for number in range(options.rounds):
            _round(bench, redis, number, jobs_planned=options.jobs, rounds=options.rounds)
        survived = all(process.alive for process in processes)
        return _verdict(options.jobs, survived, seconds=monotonic() - started)


def _round(
    bench: JobBench, redis: SentinelledRedis, number: int, *, jobs_planned: int, rounds: int
) -> None:
    first, half, later, after = (
        jobs_planned * (3 * number + third) // (3 * rounds) for third in range(4)
    )
    bench.enqueue_many("effect", half - first, first=first)
    sleep(LOAD_SECONDS)
    how = WAYS[number % len(WAYS)]
    lost, replica = redis.master, redis.replica
    if how == "behind":
        redis.cut_off_replica()
    bench.enqueue_many("effect", later - half, first=half)
    if how == "hung":
        lost.pause()
    else:
        lost.kill()
    replica.resume()
    lost_at = monotonic()
    with ThreadPoolExecutor(1) as meanwhile:
        planning = meanwhile.submit(bench.enqueue_many, "effect", after - later, first=later)
        failover = redis.wait_for_failover(lost)
        planning.result()
    if how == "hung":
        sleep(HUNG_SECONDS)
        lost.resume()
    else:
        lost.start()
    try:
        bench.wait_until(lambda: bench.states() == {OutboxState.DONE: after}, timeout=DRAIN_SECONDS)
    except TimeoutError as error:
        print(error)
    drained = monotonic() - lost_at
    redis.wait_for_replica(lost)
    effects = jobs.effects()
    print(
        f"{number + 1:>6} {after:>8} {len(effects):>8} {effects.total() - len(effects):>8} "
        f"{bench.total(OutboxEntry.resent):>7} {bench.total(OutboxEntry.deliveries):>6} "
        f"{failover:>7.1f} s {drained:>6.1f} s  {how}",
        flush=True,
    )


def _verdict(planned: int, survived: bool, *, seconds: float) -> int:
    effects = jobs.effects()
    lost, doubled = planned - len(effects), effects.total() - len(effects)
    right = lost == doubled == 0 and survived
    lives = "worker and beat went on by themselves" if survived else "worker or beat ended"
    print(
        f"{'exactly once' if right else 'NOT as promised'}: {planned} jobs, {effects.total()} "
        f"effects, {lost} lost, {doubled} doubled, in {seconds:.0f} s; {lives}"
    )
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(run_command(main))
