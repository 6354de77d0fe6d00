"""What a real worker of Celery's does with a message and with a task that gets stuck."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from celery import Celery

from app import db, outbox
from app.models import OutboxEntry, OutboxState
from scripts.live.deployment import Deployment
from scripts.live.job_bench import JobBench, job_bench
from scripts.live.processes import Process

FACT_TASKS = "tests.integration.facts.fact_tasks"
ANSWER = 30.0  # seconds
SOFT, HARD = 3, 4  # seconds


@pytest.fixture
def bench(live: Deployment) -> Iterator[JobBench]:
    with job_bench(live) as made:
        live.app = FACT_TASKS
        yield made


@pytest.fixture
def worker(bench: JobBench) -> Process:
    return bench.live.start_worker("--without-mingle", pool="solo", concurrency=1)


def waiting(client: redis.Redis) -> int:
    """Messages in any list, or held by a worker."""
    in_lists = sum(client.llen(key) for key in client.scan_iter(_type="list"))
    return in_lists + client.hlen("unacked")


def test_a_header_of_our_own_and_the_number_of_retries_reach_the_task(
    worker: Process, app: Celery
) -> None:
    """The outbox's stamp, and an entry's tries."""
    sent = app.send_task("facts.show_request", headers={"facts_stamp": "noon"}, retries=3)
    assert sent.get(timeout=ANSWER) == {"retries": 3, "stamp": "noon"}


def test_retry_raised_by_a_body_is_acknowledged_and_publishes_nothing(
    worker: Process, app: Celery, client: redis.Redis, bench: JobBench
) -> None:
    sent = app.send_task("facts.retry_without_publishing")
    worker.wait_for_line(rf"{sent.id}\] retry", timeout=ANSWER)
    assert sent.state == "RETRY"
    bench.wait_until(lambda: waiting(client) == 0, timeout=ANSWER)


@pytest.mark.timeout(120)
def test_the_end_of_a_killed_child_reaches_the_tasks_request_class(bench: JobBench) -> None:
    """``OutboxRequest.on_failure`` alone puts the work back; ``Task.on_failure`` is not called."""
    bench.live.start_worker("--without-mingle", concurrency=1)
    with db.transaction() as session:
        entry_id = outbox.enqueue(session, "facts.kill_child", unchecked=True)
    bench.wait_until(lambda: bench.entry(entry_id).tries == 1, timeout=ANSWER)
    entry = bench.entry(entry_id)
    assert "WorkerLostError" in entry.errors[0]["error"]
    assert (entry.state, entry.published_at) == (OutboxState.PENDING, None)


class TestHardTimeLimit:
    @pytest.fixture
    def worker(self, bench: JobBench) -> Process:
        limits = {"TASK_SOFT_TIME_LIMIT_SECONDS": str(SOFT), "TASK_TIME_LIMIT_SECONDS": str(HARD)}
        return bench.live.start_worker("--without-mingle", concurrency=1, environment=limits)

    @pytest.mark.timeout(120)
    def test_a_task_that_passes_it_is_one_dead_letter_made_by_the_main_process(
        self,
        worker: Process,
        bench: JobBench,
        app: Celery,
        client: redis.Redis,
        tmp_path: Path,
    ) -> None:
        entry = get_stuck(bench, "facts.get_stuck", tmp_path / "notes")
        bench.wait_until(lambda: waiting(client) == 0, timeout=ANSWER)
        assert (tmp_path / "notes").read_text() == f"{worker.pid} TimeLimitExceeded\n"
        assert int((tmp_path / "notes.child").read_text()) != worker.pid
        (error,) = entry.errors
        assert "TimeLimitExceeded" in error["error"]
        assert app.send_task("facts.show_request").get(timeout=ANSWER), "the worker goes on"

    @pytest.mark.timeout(120)
    def test_a_tasks_own_one_below_the_soft_limit_is_kept(
        self, worker: Process, bench: JobBench, tmp_path: Path
    ) -> None:
        """A prefork worker starts the clock of the hard limit when the soft one is over. So
        ``app.tasks.registration`` lowers the soft limit of such a task."""
        entry = get_stuck(bench, "facts.get_stuck_in_a_short", tmp_path / "notes")
        assert entry.finished_at is not None
        assert (entry.finished_at - entry.created_at).total_seconds() < SOFT


def get_stuck(bench: JobBench, task: str, notes: Path) -> OutboxEntry:
    """Run a task that hangs, and return its entry when that is dead."""
    with db.transaction() as session:
        entry_id = outbox.enqueue(session, task, str(notes), unchecked=True)
    bench.wait_until(lambda: bench.entry(entry_id).state is OutboxState.DEAD, timeout=ANSWER)
    return bench.entry(entry_id)
