"""A body that is ended inside its transaction, whose locks outlive it: no worker stands still."""

import logging
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from time import sleep

import pytest
import redis
from sqlalchemy.exc import OperationalError

from app import clock, db, outbox
from app.models import OutboxState
from app.tasks.stopping import END_A_CHILD
from scripts.live import jobs
from scripts.live.deployment import Deployment
from scripts.live.job_bench import JobBench, job_bench
from tests.integration.tasks import holding_jobs
from tests.integration.tasks.holding_jobs import HARD_LIMIT, HOLD_SECONDS

STANDSTILL = 10.0
"""Seconds: the promise of docs/guarantees.md."""
LOCK_WAIT = 3.0
EVERY = 0.25
SETTINGS = {
    "VISIBILITY_TIMEOUT_SECONDS": "4",
    "LEASE_INTERVAL_SECONDS": "1",
    "PUMP_INTERVAL_SECONDS": "0.2",
    "RESEND_MARGIN_SECONDS": "5",
    "MAX_DELIVERIES": "3",
    "DATABASE_BUSY_TIMEOUT_SECONDS": str(LOCK_WAIT),
    "WATCHDOG_SECONDS": "60",
}

pytestmark = [
    pytest.mark.timeout(180),
    # Begun before the first test, else it is taken for a process that the test left.
    pytest.mark.usefixtures("postgres_url"),
]


@pytest.fixture(params=["postgresql", "sqlite"])
def bench(
    request: pytest.FixtureRequest,
    broker_url: str,
    tmp_path: Path,
    show_logs: Callable[[Callable[[], Mapping[str, str]]], None],
) -> Iterator[JobBench]:
    environment = dict(SETTINGS)
    databases = made = None
    if request.param == "postgresql":
        databases = request.getfixturevalue("postgres_databases")
        made = databases.create_migrated()
        environment["DATABASE_URL"] = made.render_as_string(hide_password=False)
    with Deployment(
        redis_url=broker_url, folder=tmp_path / "live", environment=environment
    ) as live:
        show_logs(live.logs)
        with job_bench(live) as bench:
            live.app = holding_jobs.__name__
            yield bench
    if databases is not None:
        databases.drop(made)


def on_sqlite() -> bool:
    return db.engine().dialect.name == "sqlite"


def plan(task: str, *args: object) -> str:
    with db.transaction() as session:
        return outbox.enqueue(session, task, *args)


def messages_held(bench: JobBench) -> int:
    with redis.Redis.from_url(bench.live.redis_url) as client:
        return int(client.hlen("unacked"))


def longest_standstill(bench: JobBench, until: Callable[[], bool], *, timeout: float) -> float:
    """Plan other work again and again; the longest time in seconds in which none was begun."""
    began, number = clock.utcnow(), 0

    def plan_another() -> None:
        nonlocal number
        with suppress(OperationalError):  # a body has SQLite's write lock
            bench.enqueue("work", f"other-{number}")
            number += 1
        sleep(EVERY)

    while not until():
        assert (clock.utcnow() - began).total_seconds() < timeout, (bench.states(), jobs.starts())
        plan_another()
    plan_another()
    planned = {f"other-{each}" for each in range(number)}
    bench.wait_until(lambda: planned <= set(jobs.effects()), timeout=30)
    begun = [began, *sorted(start.at for job in planned for start in jobs.starts_of(job))]
    seconds = max((later - earlier).total_seconds() for earlier, later in pairwise(begun))
    logging.getLogger(__name__).warning("longest standstill: %.1f s", seconds)
    return seconds


def state_of(bench: JobBench, entry_id: str) -> OutboxState:
    return bench.entry(entry_id).state


def allowed_standstill(slots: int = 2) -> float:
    """Of what cannot begin while a body has the only slot, or SQLite's only write lock."""
    return STANDSTILL + (HARD_LIMIT if on_sqlite() or slots == 1 else 0)


@pytest.mark.parametrize(
    ("limit", "name", "slots"),
    [
        ("soft", "SoftTimeLimitExceeded", 2),
        ("hard", "TimeLimitExceeded", 2),
        ("hard", "TimeLimitExceeded", 1),
    ],
)
def test_a_time_limit_inside_the_transaction_stops_no_other_work(
    bench: JobBench, limit: str, name: str, slots: int
) -> None:
    worker = bench.live.start_worker(concurrency=slots)
    bench.live.start_beat()
    entry_id = plan("holding.limited", "limited", limit)
    bench.wait_for_start("limited")
    seconds = longest_standstill(
        bench, lambda: state_of(bench, entry_id) is not OutboxState.PENDING, timeout=40
    )
    entry = bench.entry(entry_id)
    assert entry.state is OutboxState.DEAD
    (error,) = entry.errors
    assert error["error"].startswith(name)
    assert seconds < allowed_standstill(slots)
    assert (jobs.starts()["limited"], jobs.effects()["limited"]) == (1, 0)
    bench.wait_until(lambda: messages_held(bench) == 0, timeout=10)
    assert worker.alive


def test_a_hard_time_limit_of_work_without_an_entry_makes_a_dead_letter(bench: JobBench) -> None:
    bench.live.start_worker(concurrency=2)
    sent = holding_jobs.limited.apply_async(("limited", "hard"), ignore_result=True)
    bench.wait_for_start("limited")

    def is_recorded() -> bool:
        with suppress(Exception):
            return state_of(bench, sent.id) is OutboxState.DEAD
        return False

    assert longest_standstill(bench, is_recorded, timeout=40) < allowed_standstill()
    assert jobs.starts()["limited"] == 1


@pytest.mark.parametrize("sign", [signal.SIGKILL, END_A_CHILD], ids=["killed", "ended"])
def test_a_child_that_dies_inside_its_transaction_stops_no_other_work(
    bench: JobBench, sign: signal.Signals
) -> None:
    bench.live.start_worker(concurrency=2)
    bench.live.start_beat()
    entry_id = plan("holding.once", "once")
    bench.wait_for_start("once")
    sleep(1)  # it holds the lock now
    (child,) = jobs.worker_pids("once")
    os.kill(child, sign)
    if sign is not signal.SIGKILL and not on_sqlite():
        # The driver waits for the server, and notices no SystemExit.
        sleep(1)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    seconds = longest_standstill(
        bench, lambda: state_of(bench, entry_id) is OutboxState.DONE, timeout=40
    )
    assert seconds < allowed_standstill()
    (error,) = bench.entry(entry_id).errors
    assert error["error"].startswith("WorkerLostError")
    assert (jobs.starts()["once"], jobs.effects()["once"]) == (2, 1)
    bench.wait_until(lambda: messages_held(bench) == 0, timeout=10)


def test_a_revoked_body_inside_its_transaction_stops_no_other_work(bench: JobBench) -> None:
    bench.live.start_worker(concurrency=2)
    entry_id = plan("holding.once", "once")
    bench.wait_for_start("once")
    sleep(1)  # it holds the lock now
    jobs.celery_app.control.revoke(entry_id, terminate=True, signal="SIGKILL")
    seconds = longest_standstill(
        bench, lambda: state_of(bench, entry_id) is OutboxState.CANCELLED, timeout=40
    )
    assert seconds < allowed_standstill()
    assert (jobs.starts()["once"], jobs.effects()["once"]) == (1, 0)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGCONT], ids=["killed", "resumed"])
def test_a_stopped_worker_that_holds_a_row_keeps_no_slot_of_others(
    bench: JobBench, end: signal.Signals
) -> None:
    """All of its processes are stopped, so its message is redelivered to another worker."""
    heir = bench.live.start_worker(name="heir", concurrency=1)
    bench.live.start_beat()
    bench.enqueue("work", "long", 15)
    bench.wait_for_start("long")
    stopped = bench.live.start_worker(name="stopped", concurrency=1)
    entry_id = plan("holding.idle", "idle", HOLD_SECONDS / 2)
    bench.wait_for_start("idle")
    sleep(1)  # it holds the lock now
    processes = [stopped.pid, *(child.pid for child in stopped.descendants())]
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    # The redelivered message was looked at, and left for later. On SQLite the heir takes none.
    told = "takes no messages until it does" if on_sqlite() else "not recorded: holding.idle"
    heir.wait_for_line(told, timeout=40)
    if not on_sqlite():  # where nobody writes meanwhile
        bench.enqueue("work", "other")
        bench.wait_until(lambda: jobs.effects()["other"] == 1, timeout=STANDSTILL)
    for pid in processes:
        os.kill(pid, end)
    bench.wait_until(lambda: state_of(bench, entry_id) is OutboxState.DONE, timeout=60)
    assert jobs.effects()["idle"] == 1
    assert heir.alive


def test_a_warm_shutdown_records_a_hard_time_limit(bench: JobBench) -> None:
    worker = bench.live.start_worker(concurrency=1)
    entry_id = plan("holding.limited", "limited", "hard")
    bench.wait_for_start("limited")
    assert worker.terminate(grace=HOLD_SECONDS) == 0
    assert state_of(bench, entry_id) is OutboxState.DEAD
