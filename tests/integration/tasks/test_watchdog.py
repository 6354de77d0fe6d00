"""A worker that lives and works no more ends itself; one that has a reason is left alone."""

import subprocess
import sys
from time import sleep

import pytest

from app import db, outbox
from app.tasks.watchdog import EXIT_STATUS
from scripts.live import jobs
from scripts.live.deployment import REPOSITORY
from scripts.live.job_bench import JobBench
from scripts.live.processes import Process
from scripts.live.redis_server import RedisServer
from tests.integration.tasks import failing_acks, losing_slots

SLOTS = 2
WATCHDOG_SECONDS = 4
SETTINGS = {
    "WATCHDOG_SECONDS": str(WATCHDOG_SECONDS),
    "VISIBILITY_TIMEOUT_SECONDS": "3",
    "LEASE_INTERVAL_SECONDS": "1",
}


def stalled(bench: JobBench, **environment: str) -> Process:
    """A worker whose every credit is lost, and work that waits."""
    bench.live.app = failing_acks.__name__
    worker = bench.live.start_worker(
        name="stuck",
        concurrency=SLOTS,
        environment={**SETTINGS, failing_acks.FAILURES: str(SLOTS), **environment},
    )
    bench.enqueue_many("work", SLOTS)
    bench.wait_for_effects(SLOTS, timeout=30)
    bench.wait_until(lambda: worker.log_text().count("Couldn't ack") == SLOTS, timeout=30)
    bench.enqueue_many("work", 3, first=SLOTS)
    return worker


def ping(bench: JobBench) -> str:
    command = [sys.executable, "-m", "celery", "-A", "app.tasks", "inspect", "ping"]
    return subprocess.run(
        command,
        cwd=REPOSITORY,
        env=bench.live.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    ).stdout


@pytest.mark.timeout(120)
def test_a_worker_that_lost_its_credits_answers_pings_and_starts_nothing(bench: JobBench) -> None:
    """The stall that the watchdog is for. Where this fails, kombu has mended it."""
    worker = stalled(bench, WATCHDOG_SECONDS="0")
    assert "pong" in ping(bench)
    sleep(WATCHDOG_SECONDS)
    assert worker.alive
    assert len(jobs.starts()) == SLOTS


@pytest.mark.timeout(180)
def test_a_stuck_worker_exits_and_its_successor_does_everything_once(bench: JobBench) -> None:
    worker = stalled(bench)
    assert worker.wait(10 * WATCHDOG_SECONDS) == EXIT_STATUS
    (line,) = [line for line in worker.log_text().splitlines() if "stuck: " in line]
    assert "critical" in line.lower()
    assert f"3 messages wait, {SLOTS} of {SLOTS} slots are free" in line
    bench.live.app = jobs.__name__
    bench.live.start_worker(name="successor", environment=SETTINGS)
    bench.wait_for_effects(SLOTS + 3, timeout=60)
    assert set(jobs.effects().values()) == {1}


@pytest.mark.timeout(180)
def test_a_busy_an_idle_and_a_cut_off_worker_are_left_alone(
    breakable_bench: JobBench, own_redis: RedisServer
) -> None:
    bench = breakable_bench
    worker = bench.live.start_worker(concurrency=1, environment=SETTINGS)
    sleep(2 * WATCHDOG_SECONDS)
    bench.enqueue("work", "long", 3 * WATCHDOG_SECONDS)
    bench.enqueue("work", "waits")
    bench.wait_for_effects(2, timeout=60)
    own_redis.pause()
    sleep(2 * WATCHDOG_SECONDS)
    own_redis.resume()
    assert worker.alive
    bench.enqueue("work", "after")
    bench.wait_for_effects(3, timeout=60)
    assert "stuck: " not in worker.log_text()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("pool", ["prefork", "threads", "gevent"])
def test_a_slot_that_celery_takes_for_busy_comes_back(bench: JobBench, pool: str) -> None:
    """The pool has finished its task, and the worker was never told."""
    bench.live.app = losing_slots.__name__
    worker = bench.live.start_worker(pool=pool, concurrency=1, environment=SETTINGS)
    with db.transaction() as session:
        entry_id = outbox.enqueue(session, "losing.job", "lost")
    bench.wait_for_start("lost")
    bench.enqueue("work", "next")
    bench.wait_for_effects(1, timeout=30)
    assert worker.alive
    assert f"slot lost: losing.job[{entry_id}] has finished in the pool" in worker.log_text()
    assert jobs.starts() == {"lost": 1, "next": 1}
