"""In every pool the same is counted and logged of a task, however it ends."""

import pytest

from app import clock, trace
from app.outbox import PUBLISHED_AT_HEADER
from scripts.live import jobs
from scripts.live.job_bench import JobBench
from tests.integration.observing.watching import ANSWER, Watched

A, B = "a" * 32, "b" * 32
FIELDS = {"task", "task_id", "queue", "retries", "trace_id"}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("pool", ["prefork", "threads", "solo", "gevent", "eventlet"])
def test_a_pool_counts_and_logs_every_end_of_a_task(
    watched: Watched, bench: JobBench, pool: str
) -> None:
    watched.start_worker(pool=pool)
    with trace.use(A):
        first = [
            bench.enqueue("work", "done"),
            bench.enqueue("fail", "never", "permanent"),
            bench.enqueue("fail_first", "later", 1, 60),
        ]
    with trace.use(B):
        twice = bench.enqueue("effect", "twice")
    bench.wait_for_effects(2, timeout=ANSWER)
    jobs.celery_app.send_task(
        jobs.effect.name,
        ("twice",),
        task_id=twice,
        headers={PUBLISHED_AT_HEADER: clock.utcnow().isoformat(), trace.HEADER: B},
        ignore_result=True,
    )

    watched.wait_for_runs(
        {
            ("work", "succeeded"): 1,
            ("fail", "failed"): 1,
            ("fail_first", "retried"): 1,
            ("effect", "succeeded"): 1,
            ("effect", "skipped"): 1,
        }
    )
    assert watched.samples("celery_task_retries_total") == {
        ("TransientError", jobs.fail_first.name): 1
    }
    for histogram in ("run", "wait"):
        counts = watched.samples(f"celery_task_{histogram}_seconds_count")
        assert sum(counts.values()) == 5, histogram
    died = {
        task: number for task, number in watched.samples("dead_letters_total").items() if number
    }
    assert died == {(jobs.fail.name,): 1}
    assert watched.samples("worker_slots")[("busy",)] == 0

    for entry_ids, trace_id in ((first, A), ([twice], B)):
        for entry_id in entry_ids:
            about = [line for line in watched.lines() if entry_id in line["event"]]
            assert len(about) >= 2, "received, and ended"
            assert all(line.keys() >= FIELDS for line in about)
            assert {(line["task_id"], line["trace_id"]) for line in about} == {(entry_id, trace_id)}


@pytest.mark.timeout(120)
def test_counts_survive_the_child_that_did_the_work(watched: Watched, bench: JobBench) -> None:
    watched.start_worker("--max-tasks-per-child=1", concurrency=1)
    watched.start_beat()
    bench.enqueue("effect", "a")
    bench.enqueue("effect", "b")
    bench.enqueue("kill_child", "c", 1)
    bench.wait_for_effects(3, timeout=ANSWER)
    watched.wait_for_runs(
        {
            ("effect", "succeeded"): 2,
            ("kill_child", "lost"): 1,
            ("kill_child", "succeeded"): 1,
        }
    )


@pytest.mark.timeout(120)
def test_busy_slots_are_seen_while_they_are_busy(watched: Watched, bench: JobBench) -> None:
    watched.start_worker(pool="solo", concurrency=1)
    bench.enqueue("work", "long", 5)
    bench.wait_for_start("long")
    assert watched.samples("worker_slots") == {("busy",): 1, ("free",): 0}


@pytest.mark.timeout(120)
def test_a_revoked_and_a_too_long_task_are_counted_apart(watched: Watched, bench: JobBench) -> None:
    limits = {"TASK_SOFT_TIME_LIMIT_SECONDS": "59", "TASK_TIME_LIMIT_SECONDS": "60"}
    watched.start_worker(concurrency=2, environment=limits)
    revoked = bench.enqueue("work", "revoked", 60)
    bench.wait_for_start("revoked")
    jobs.celery_app.control.revoke(revoked, terminate=True)
    jobs.work.apply_async(("too-long", 60), time_limit=2, soft_time_limit=1, ignore_result=True)
    watched.wait_for_runs({("work", "revoked"): 1, ("work", "failed"): 1})
