"""A message that its task's rate limit holds back holds back no other message."""

import signal
from collections import Counter
from datetime import timedelta
from itertools import pairwise
from time import sleep

import pytest
import redis
from sqlalchemy import select

from app import clock, db, outbox
from app.models import OutboxEntry, OutboxState
from app.tasks.consumer import LONGEST_POSTPONEMENT, SHORTEST_LINE
from scripts.live import jobs
from scripts.live.job_bench import JobBench
from scripts.live.processes import Process
from tests.integration.tasks import limited_jobs

SLOTS = 2
PER_SECOND = 2
"""Of ``limited.steady``."""
PROMPTLY = 3.0
"""Seconds. One token of ``limited.slow`` takes 10."""


@pytest.fixture
def bench(bench: JobBench) -> JobBench:
    bench.live.app = limited_jobs.__name__
    return bench


def start_worker(bench: JobBench, pool: str = "threads", name: str = "worker") -> Process:
    slots = 1 if pool == "solo" else SLOTS
    return bench.live.start_worker("--without-mingle", pool=pool, concurrency=slots, name=name)


def enqueue(task: str, count: int, *args: object) -> None:
    with db.transaction() as session:
        for number in range(count):
            outbox.enqueue(session, task, f"{task} {number}", *args)


def held(bench: JobBench) -> int:
    with redis.Redis.from_url(bench.live.redis_url) as client:
        return int(client.hlen("unacked"))


def postponed() -> list[timedelta]:
    """How far ahead each entry is due that is not with the broker, the nearest first."""
    now = clock.utcnow()
    with db.reading() as session:
        chosen = select(OutboxEntry.due_at).where(
            OutboxEntry.pending(), OutboxEntry.published_at.is_(None)
        )
        return sorted(due - now for due in session.scalars(chosen))


def runs(task: str) -> Counter[str]:
    return Counter({job: n for job, n in jobs.starts().items() if job.startswith(task)})


@pytest.mark.timeout(120)
@pytest.mark.parametrize("pool", ["prefork", "threads", "solo", "gevent"])
def test_an_urgent_task_does_not_wait_behind_a_rate_limit(bench: JobBench, pool: str) -> None:
    start_worker(bench, pool)
    enqueue("limited.slow", 20)
    bench.wait_until(lambda: len(jobs.starts()) == 1 and held(bench) >= SLOTS, timeout=30)
    bench.enqueue("work", "urgent", urgency=9)
    bench.wait_until(lambda: jobs.effects()["urgent"] == 1, timeout=PROMPTLY)


@pytest.mark.timeout(120)
def test_messages_without_an_entry_hold_no_credit_either(bench: JobBench) -> None:
    start_worker(bench)
    for number in range(20):
        jobs.celery_app.send_task("limited.slow", (f"foreign {number}",), ignore_result=True)
    bench.wait_until(lambda: held(bench) == 19, timeout=30)
    bench.enqueue("work", "urgent", urgency=9)
    bench.wait_until(lambda: jobs.effects()["urgent"] == 1, timeout=PROMPTLY)


@pytest.mark.timeout(120)
def test_of_many_limited_messages_a_worker_holds_few(bench: JobBench) -> None:
    """The others wait in their entries, each until it is about its turn."""
    start_worker(bench)
    enqueue("limited.slow", 1000)
    bench.wait_until(lambda: len(postponed()) > 900, timeout=60)
    bench.enqueue("work", "urgent", urgency=9)
    bench.wait_until(lambda: jobs.effects()["urgent"] == 1, timeout=PROMPTLY)
    bench.wait_until(lambda: len(postponed()) >= 1000 - SHORTEST_LINE - 3, timeout=30)
    assert held(bench) <= SHORTEST_LINE
    due = postponed()
    assert due[-1] <= timedelta(seconds=LONGEST_POSTPONEMENT)
    assert due[20] - due[0] > timedelta(seconds=60), "one turn each, as far as turns are planned"


@pytest.mark.timeout(120)
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_the_rate_is_kept_and_used(bench: JobBench, pool: str) -> None:
    bench.live.start_beat()
    start_worker(bench, pool)
    enqueue("limited.steady", 3 * SHORTEST_LINE)
    seconds = bench.wait_for_effects(3 * SHORTEST_LINE, timeout=60)
    assert seconds < 1.5 * 3 * SHORTEST_LINE / PER_SECOND
    starts = [start.at for job in jobs.effects() for start in jobs.starts_of(job)]
    assert len(starts) == 3 * SHORTEST_LINE, "each once"
    starts.sort()
    for first, second in pairwise(starts[::4]):
        # Four starts take four turns; a busy machine may begin the first one late.
        assert (second - first).total_seconds() > 4 / PER_SECOND - 0.5


@pytest.mark.timeout(120)
def test_limited_tasks_do_not_queue_up_before_urgent_ones_while_all_slots_are_busy(
    bench: JobBench,
) -> None:
    start_worker(bench)
    for number in range(15):
        jobs.celery_app.send_task("limited.steady", (f"foreign {number}", 1), ignore_result=True)
    bench.wait_until(lambda: held(bench) >= 10, timeout=30)
    bench.enqueue("work", "long", 8, urgency=9)
    bench.wait_for_start("long")
    bench.enqueue("work", "urgent", urgency=9)
    before = len(runs("foreign"))
    bench.wait_for_start("urgent")
    assert jobs.start_order().index("urgent") <= before + 1 + SLOTS


@pytest.mark.timeout(120)
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_tasks_whose_eta_has_come_do_not_run_before_urgent_ones(bench: JobBench, pool: str) -> None:
    start_worker(bench, pool)
    for number in range(20):
        jobs.celery_app.send_task(
            "scripts.live.jobs.work", (f"eta {number}", 1), countdown=4, ignore_result=True
        )
    bench.wait_until(lambda: held(bench) == 20, timeout=30)
    bench.enqueue("work", "while they wait", urgency=9)
    bench.wait_until(lambda: jobs.effects()["while they wait"] == 1, timeout=PROMPTLY)
    bench.wait_until(lambda: len(runs("eta")) == SLOTS, timeout=30)
    bench.enqueue("work", "while they run", urgency=9)
    bench.wait_until(lambda: jobs.effects()["while they run"] == 1, timeout=30)
    assert len(runs("eta")) <= 3 * SLOTS
    bench.wait_until(lambda: len(runs("eta")) == 20, timeout=30)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("pool", ["prefork", "threads", "solo", "gevent"])
def test_a_worker_that_stops_gives_back_what_waits_for_its_rate_limit(
    bench: JobBench, pool: str
) -> None:
    worker = start_worker(bench, pool)
    enqueue("limited.slow", 20)
    bench.wait_until(lambda: len(postponed()) == 19 - SHORTEST_LINE, timeout=30)
    worker.signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    assert (held(bench), len(jobs.starts()), len(jobs.effects())) == (0, 1, 1)
    with redis.Redis.from_url(bench.live.redis_url) as client:
        given_back = sum(client.llen(key) for key in client.scan_iter("celery*", _type="list"))
    assert given_back == SHORTEST_LINE
    with db.reading() as session:
        states = Counter(session.scalars(select(OutboxEntry.state)))
    assert states == {OutboxState.DONE: 1, OutboxState.PENDING: 19}


@pytest.mark.timeout(180)
def test_what_a_killed_worker_held_is_run_once_by_another(bench: JobBench) -> None:
    settings = {"VISIBILITY_TIMEOUT_SECONDS": "3", "LEASE_INTERVAL_SECONDS": "1"}
    bench.live.environment.update(settings)
    bench.live.start_beat()
    first = start_worker(bench)
    enqueue("limited.steady", 15)
    bench.wait_until(lambda: len(jobs.effects()) >= 2, timeout=30)
    first.kill()
    start_worker(bench, name="second")
    bench.wait_for_effects(15, timeout=60)
    assert set(jobs.effects().values()) == {1}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("limit", ["20/s", "0"])
def test_a_limit_that_is_raised_holds_for_what_waits(bench: JobBench, limit: str) -> None:
    start_worker(bench)
    enqueue("limited.slow", SHORTEST_LINE)
    bench.wait_until(lambda: held(bench) == SHORTEST_LINE - 1, timeout=30)
    jobs.celery_app.control.rate_limit("limited.slow", limit)
    bench.wait_for_effects(SHORTEST_LINE, timeout=PROMPTLY + 2)


@pytest.mark.timeout(120)
def test_the_watchdog_leaves_alone_a_worker_whose_messages_all_wait(bench: JobBench) -> None:
    """It takes each, so nothing waits in Redis while its slots are free."""
    bench.live.environment["WATCHDOG_SECONDS"] = "3"
    worker = start_worker(bench)
    enqueue("limited.slow", 15)
    for number in range(15):
        jobs.celery_app.send_task("limited.slow", (f"foreign {number}",), ignore_result=True)
    bench.wait_until(lambda: len(jobs.starts()) == 1, timeout=30)
    sleep(9)
    assert worker.alive
    assert "stuck: " not in worker.log_text()


@pytest.mark.timeout(120)
def test_what_waits_in_a_worker_is_counted_in_its_prefetch_count(bench: JobBench) -> None:
    """As the page on operations says: ``inspect reserved`` does not list it."""
    worker = start_worker(bench)
    for number in range(7):
        jobs.celery_app.send_task("limited.slow", (f"foreign {number}",), ignore_result=True)
    bench.wait_until(lambda: len(jobs.effects()) == 1 and held(bench) == 6, timeout=30)
    inspect = jobs.celery_app.control.inspect(timeout=5, limit=1)
    [reserved] = inspect.reserved().values()
    [scheduled] = inspect.scheduled().values()
    [stats] = inspect.stats().values()
    assert (reserved, scheduled, stats["prefetch_count"]) == ([], [], SLOTS + 6)
    assert worker.alive
