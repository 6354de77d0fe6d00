"""A body that is ended from outside has not failed: its entry stays, or is cancelled."""

import os
import signal
from contextlib import suppress

import pytest

from app.models import OutboxState
from app.tasks.stopping import END_A_CHILD
from scripts.live import jobs
from scripts.live.job_bench import JobBench
from scripts.live.processes import Process

LONG = 60.0  # seconds
SETTINGS = {"VISIBILITY_TIMEOUT_SECONDS": "3", "LEASE_INTERVAL_SECONDS": "1"}

pytestmark = pytest.mark.timeout(150)


@pytest.mark.parametrize("pool", ["prefork", "gevent", "eventlet"])
def test_a_revoked_body_is_cancelled_and_its_slot_comes_back(bench: JobBench, pool: str) -> None:
    bench.live.start_worker(pool=pool, concurrency=1, environment=SETTINGS)
    entry_id = bench.enqueue("work", "revoked", LONG)
    bench.wait_for_start("revoked")
    jobs.celery_app.control.revoke(entry_id, terminate=True)
    bench.enqueue("work", "next")
    bench.wait_for_effects(1, timeout=30)
    bench.wait_until(lambda: bench.entry(entry_id).state is OutboxState.CANCELLED, timeout=5)
    assert bench.entry(entry_id).errors == []
    assert jobs.starts() == {"revoked": 1, "next": 1}


def end(worker: Process, sign: signal.Signals, *, times: int) -> None:
    for _ in range(times):
        if worker.alive:
            os.kill(worker.pid, sign)
        with suppress(TimeoutError):
            worker.wait(2)
            return
    assert not worker.alive, worker.log_text()[-2000:]


@pytest.mark.parametrize("pool", ["prefork", "solo", "gevent"])
def test_a_worker_that_is_stopped_at_once_leaves_its_entry_to_the_next_one(
    bench: JobBench, pool: str
) -> None:
    """SIGQUIT, again and again: cold, then hard shutdown."""
    worker = bench.live.start_worker(name="stopped", pool=pool, concurrency=1, environment=SETTINGS)
    entry_id = bench.enqueue("work", "long", 10)
    bench.wait_for_start("long")
    end(worker, signal.SIGQUIT, times=6)
    entry = bench.entry(entry_id)
    assert entry.state is OutboxState.PENDING
    assert not [error for error in entry.errors if "WorkerLostError" not in error["error"]]
    bench.live.start_beat()
    bench.live.start_worker(name="next", pool=pool, concurrency=1, environment=SETTINGS)
    bench.wait_for_effects(1, timeout=60)
    assert bench.entry(entry_id).state is OutboxState.DONE


def test_a_child_that_is_told_to_end_gives_its_work_back(bench: JobBench) -> None:
    bench.live.start_worker(concurrency=1, environment=SETTINGS)
    bench.live.start_beat()
    entry_id = bench.enqueue("work", "long", 10)
    bench.wait_for_start("long")
    (child,) = jobs.worker_pids("long")
    os.kill(child, END_A_CHILD)
    bench.wait_for_effects(1, timeout=60)
    entry = bench.entry(entry_id)
    assert (entry.state, jobs.starts()["long"]) == (OutboxState.DONE, 2)
    (error,) = entry.errors
    assert error["error"].startswith("WorkerLostError")


@pytest.mark.parametrize("pool", ["threads", "solo", "gevent"])
def test_a_warm_shutdown_waits_for_the_body(bench: JobBench, pool: str) -> None:
    worker = bench.live.start_worker(pool=pool, concurrency=1, environment=SETTINGS)
    bench.enqueue("work", "long", 4)
    bench.wait_for_start("long")
    assert worker.terminate() == 0
    assert (jobs.effects(), jobs.starts()) == ({"long": 1}, {"long": 1})
