"""A paused queue: running and new workers leave it alone, and take it up again."""

import subprocess
import sys
from collections.abc import Callable
from time import sleep

import pytest

from app import db, outbox
from app.models import OutboxEntry
from app.tasks.pauses import INTERVAL_SECONDS
from app.tasks.watchdog import EXIT_STATUS
from scripts.live import jobs
from scripts.live.deployment import REPOSITORY
from scripts.live.job_bench import JobBench

SOON = 20.0  # seconds, on a busy machine
A_WHILE = 3 * INTERVAL_SECONDS
WATCHED = {"WATCHDOG_SECONDS": str(INTERVAL_SECONDS)}


@pytest.fixture
def admin(bench: JobBench) -> Callable[..., str]:
    def run(*words: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "app.admin", *words],
            cwd=REPOSITORY,
            env=bench.live.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout

    return run


@pytest.mark.timeout(180)
@pytest.mark.parametrize("pool", ["prefork", "solo", "threads", "gevent"])
def test_a_paused_queue_waits_and_a_resumed_one_is_served(
    bench: JobBench, admin: Callable[..., str], pool: str
) -> None:
    """The jobs' queue is the default one, ``celery``; what runs when it is paused, ends."""
    bench.live.start_beat(
        environment={"RESEND_MARGIN_SECONDS": "3", "PUBLISH_TIMEOUT_SECONDS": "1"}
    )
    worker = bench.live.start_worker(pool=pool, concurrency=1, environment=WATCHED)
    bench.enqueue("work", "running", A_WHILE)
    bench.wait_for_start("running")
    assert "celery is paused" in admin("queues", "pause", "celery", "email")
    worker.wait_for_line("the queue celery is paused", timeout=SOON)
    bench.wait_for_effects(1, timeout=SOON)

    bench.enqueue("work", "waits")
    newcomer = bench.live.start_worker(name="new", pool=pool, concurrency=1, environment=WATCHED)
    sleep(A_WHILE)
    assert jobs.effects() == {"running": 1}
    assert worker.alive, f"{worker.exit_code}, not {EXIT_STATUS}: the watchdog leaves pauses alone"
    assert newcomer.alive
    assert bench.total(OutboxEntry.resent) == 0, "what waits in a paused queue is not gone"

    admin("queues", "resume", "celery")
    bench.wait_for_effects(2, timeout=SOON)
    assert jobs.effects() == {"running": 1, "waits": 1}


@pytest.mark.timeout(120)
def test_a_resumed_queue_is_served_only_by_the_workers_that_were_told_to(
    bench: JobBench, admin: Callable[..., str]
) -> None:
    worker = bench.live.start_worker(queues=["cache", "analytics"])
    admin("queues", "pause", "celery", "cache")
    worker.wait_for_line("the queue cache is paused", timeout=SOON)
    bench.enqueue("work", "not mine")
    admin("queues", "resume", "celery", "cache")
    worker.wait_for_line("the queue cache is resumed", timeout=SOON)
    with db.transaction() as session:
        outbox.enqueue(session, "app.tasks.cache.nobody_knows_it", unchecked=True)
    worker.wait_for_line("unknown task app.tasks.cache", timeout=SOON)
    assert not jobs.starts()
