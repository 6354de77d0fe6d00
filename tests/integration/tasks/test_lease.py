"""The lease: a dead worker's work comes back soon, a living one's is never run twice."""

import os
import signal
import sys
from pathlib import Path

import pytest

from app.models import OutboxState
from app.tasks.startup import TRY_AGAIN
from scripts.live import jobs
from scripts.live.job_bench import JobBench
from scripts.live.redis_server import RedisServer
from tests.integration.tasks import stepping_clock

VISIBILITY_TIMEOUT_SECONDS = 4
LONGER_THAN_THREE_TIMEOUTS = 3.2 * VISIBILITY_TIMEOUT_SECONDS
SHORT = {
    "VISIBILITY_TIMEOUT_SECONDS": str(VISIBILITY_TIMEOUT_SECONDS),
    "LEASE_INTERVAL_SECONDS": "1",
}

# Once a file exists, takes kombu's mutex around the search for expired leases, as a worker
# does each second.
HOLD_THE_MUTEX = """
import signal, sys, time
from pathlib import Path
from kombu.transport.redis import Mutex, MutexHeld
from app.tasks import celery_app
with celery_app.connection_for_read() as connection:
    channel = connection.default_channel
    with channel.conn_or_acquire() as client:
        print("waits", flush=True)
        while not Path(sys.argv[1]).exists():
            time.sleep(0.01)
        while True:
            try:
                with Mutex(client, channel.unacked_mutex_key, channel.unacked_mutex_expire):
                    print("holds the mutex", flush=True)
                    signal.pause()
            except MutexHeld:
                time.sleep(0.01)
"""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("pool", ["prefork", "solo", "threads", "gevent", "eventlet"])
def test_a_task_longer_than_the_visibility_timeout_runs_once(bench: JobBench, pool: str) -> None:
    """Slow, because the timeout must run out three times while the task runs."""
    bench.live.start_worker(name="holder", pool=pool, concurrency=1, environment=SHORT)
    bench.enqueue("work", "long", LONGER_THAN_THREE_TIMEOUTS)
    bench.wait_for_start("long")
    bench.live.start_worker(name="thief", concurrency=1, environment=SHORT)
    bench.wait_for_effects(1, timeout=60)
    assert (jobs.starts()["long"], jobs.effects()["long"]) == (1, 1)


@pytest.mark.timeout(120)
def test_a_wait_longer_than_the_visibility_timeout_runs_once(bench: JobBench) -> None:
    """A countdown that a stock producer asked for is held by the worker, unacknowledged."""
    bench.live.start_worker(name="holder", concurrency=1, environment=SHORT)
    bench.live.start_worker(name="thief", concurrency=1, environment=SHORT)
    jobs.work.apply_async(("waits",), countdown=LONGER_THAN_THREE_TIMEOUTS, ignore_result=True)
    bench.wait_for_effects(1, timeout=60)
    assert (jobs.starts()["waits"], jobs.effects()["waits"]) == (1, 1)


@pytest.mark.timeout(120)
def test_a_warm_shutdown_keeps_the_lease_until_the_last_task_has_ended(bench: JobBench) -> None:
    holder = bench.live.start_worker(name="holder", concurrency=1, environment=SHORT)
    bench.enqueue("work", "long", LONGER_THAN_THREE_TIMEOUTS)
    bench.wait_for_start("long")
    bench.live.start_worker(name="thief", concurrency=1, environment=SHORT)
    assert holder.terminate(grace=60) == 0
    assert (jobs.starts()["long"], jobs.effects()["long"]) == (1, 1)


@pytest.mark.timeout(120)
def test_a_killed_workers_message_is_visible_again_after_the_timeout(bench: JobBench) -> None:
    victim = bench.live.start_worker(name="victim", concurrency=1, environment=SHORT)
    entry_id = bench.enqueue("work", "a", 3)
    bench.wait_for_start("a")
    victim.kill()
    bench.live.start_worker(name="heir", concurrency=1, environment=SHORT)
    bench.wait_for_effects(1, timeout=30)
    assert jobs.starts()["a"] == 2
    assert bench.entry(entry_id).deliveries == 1
    assert bench.entry(entry_id).resent == 0, "the broker gave it back, nobody resent it"


@pytest.mark.timeout(120)
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
def test_a_mutex_held_by_the_dead_delays_nobody(
    bench: JobBench, tmp_path: Path, end: signal.Signals
) -> None:
    """kombu's default lets the mutex outlive its holder by 300 seconds."""
    now = tmp_path / "now"
    holder = bench.live.run([sys.executable, "-c", HOLD_THE_MUTEX, str(now)], name="holder")
    holder.wait_for_line("waits", timeout=30)
    victim = bench.live.start_worker(name="victim", concurrency=1, environment=SHORT)
    bench.enqueue("work", "a", 5)
    bench.wait_for_start("a")
    victim.kill()
    now.touch()
    holder.wait_for_line("holds the mutex", timeout=30)
    os.kill(holder.pid, end)
    bench.live.start_worker(name="heir", concurrency=1, environment=SHORT)
    bench.wait_for_effects(1, timeout=30)
    assert jobs.starts()["a"] == 2


@pytest.mark.timeout(120)
@pytest.mark.parametrize("fault", ["no lease", "a lease until tomorrow"])
def test_a_dead_workers_message_runs_again_whatever_became_of_its_lease(
    breakable_bench: JobBench, own_redis: RedisServer, fault: str
) -> None:
    """kombu gives neither back: the relay must not take such a message for held."""
    bench = breakable_bench
    victim = bench.live.start_worker(name="victim", concurrency=1, environment=SHORT)
    entry_id = bench.enqueue("work", "a", 3)
    bench.wait_for_start("a")
    victim.kill()
    with own_redis.client() as client:
        ((tag, _),) = client.zrange("unacked_index", 0, -1, withscores=True)
        if fault == "no lease":
            client.delete("unacked_index")
        else:
            client.zadd("unacked_index", {tag: client.time()[0] + 86_400})
    bench.live.start_beat(
        environment={**SHORT, "RESEND_MARGIN_SECONDS": "2", "PUBLISH_TIMEOUT_SECONDS": "0.5"}
    )
    bench.live.start_worker(name="heir", concurrency=1, environment=SHORT)
    bench.wait_for_effects(1, timeout=30)
    assert bench.entry(entry_id).resent == 1


@pytest.mark.timeout(120)
@pytest.mark.parametrize("pool", ["prefork", "solo", "threads", "gevent"])
def test_a_worker_whose_clock_steps_takes_nothing_from_others(
    bench: JobBench, tmp_path: Path, pool: str
) -> None:
    """By its clock every lease has run out. It ends, and its supervisor starts it again."""
    step = tmp_path / "step"
    holder = bench.live.start_worker(name="holder", concurrency=1, environment=SHORT)
    bench.enqueue("work", "long", LONGER_THAN_THREE_TIMEOUTS)
    bench.wait_for_start("long")
    bench.live.app = stepping_clock.__name__
    thief = bench.live.start_worker(
        name="thief",
        pool=pool,
        concurrency=1,
        environment={**SHORT, stepping_clock.STEP_FILE: str(step)},
    )
    step.touch()
    assert thief.wait(timeout=30) == TRY_AGAIN
    assert "clock is +3600 s off Redis's" in thief.log_text()
    bench.wait_for_effects(1, timeout=60)
    assert (jobs.starts()["long"], jobs.effects()["long"]) == (1, 1)
    assert holder.alive


@pytest.mark.timeout(120)
def test_a_busy_worker_whose_clock_steps_ends_after_its_task(
    bench: JobBench, tmp_path: Path
) -> None:
    step = tmp_path / "step"
    bench.live.app = stepping_clock.__name__
    worker = bench.live.start_worker(
        concurrency=1, environment={**SHORT, stepping_clock.STEP_FILE: str(step)}
    )
    for name in ("first", "second"):
        bench.enqueue("work", name, 4)
    bench.wait_for_start("first")
    step.touch()
    assert worker.wait(timeout=30) == TRY_AGAIN
    assert (jobs.effects()["first"], jobs.starts()["second"]) == (1, 0)


@pytest.mark.timeout(120)
def test_a_cut_connection_does_not_end_the_lease(
    breakable_bench: JobBench, own_redis: RedisServer
) -> None:
    """After it, the worker's new channel does not know what the old one holds."""
    bench = breakable_bench
    bench.live.start_worker(name="holder", concurrency=1, environment=SHORT)
    bench.enqueue("work", "long", LONGER_THAN_THREE_TIMEOUTS)
    bench.wait_for_start("long")
    with own_redis.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)
    bench.live.start_worker(name="thief", concurrency=1, environment=SHORT)
    bench.wait_for_effects(1, timeout=60)
    assert (jobs.starts()["long"], jobs.effects()["long"]) == (1, 1)


@pytest.mark.timeout(300)
def test_with_the_production_timeout_90_seconds_run_once(bench: JobBench) -> None:
    """Slow, because it is the promise with its own numbers."""
    for name in ("holder", "thief"):
        bench.live.start_worker(name=name)
    bench.live.start_beat()
    bench.enqueue("work", "long", 90)
    jobs.work.apply_async(("waits",), countdown=90, ignore_result=True)
    bench.wait_until(lambda: bench.states() == {OutboxState.DONE: 2}, timeout=200)
    assert jobs.starts() == jobs.effects() == {"long": 1, "waits": 1}
