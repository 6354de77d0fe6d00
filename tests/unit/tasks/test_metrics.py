"""What is counted of each way a task can end, from what a worker's main process is told."""

from collections.abc import Iterator
from time import monotonic
from typing import Any
from unittest.mock import MagicMock

import pytest
from billiard.einfo import ExceptionInfo
from billiard.exceptions import Terminated, WorkerLostError
from celery.exceptions import Ignore, Reject, Retry
from celery.utils.saferepr import saferepr

from app.tasks import BaseTask, metrics
from app.tasks.base import DEAD, SKIPPED
from app.tasks.metrics import MAX_REASONS, REGISTRY, TaskState
from tests.fakes import FakeClock
from tests.unit.tasks.conftest import WAITED, Bench, a_request, failure


@pytest.fixture
def task(bench: Bench) -> Any:
    def body(self: BaseTask) -> None: ...

    return bench.task(body)


@pytest.fixture(autouse=True)
def _no_reasons_before() -> Iterator[None]:
    before = set(metrics._reasons)
    metrics._reasons.clear()
    yield
    metrics._reasons.update(before)


def counted(task: Any, queue: str = "email") -> dict[str, float]:
    """The runs of the task, by how they ended."""
    return {
        sample.labels["state"]: sample.value
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.name == "celery_tasks_total"
        and (sample.labels["task"], sample.labels["queue"]) == (task.name, queue)
    }


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def succeed(request: Any, result: Any = None) -> None:
    request.on_success((0, saferepr(result), 0.1))


@pytest.mark.parametrize(
    ("result", "state"),
    [
        ({"sent": 3}, TaskState.SUCCEEDED),
        (SKIPPED, TaskState.SKIPPED),
        (DEAD, TaskState.DEAD),
    ],
)
def test_a_result_is_counted_as_what_it_says(
    task: Any, now: FakeClock, result: Any, state: str
) -> None:
    succeed(a_request(task, now), result)
    assert counted(task) == {state: 1}


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (ValueError("no"), TaskState.FAILED),
        (Retry("later", exc=ConnectionError("away")), TaskState.RETRIED),
        (Ignore(), TaskState.IGNORED),
        (Reject("no", requeue=False), TaskState.FAILED),
        (WorkerLostError("killed"), TaskState.LOST),
        (Terminated("killed on purpose"), TaskState.REVOKED),
    ],
)
def test_an_error_is_counted_as_what_it_means(
    task: Any, now: FakeClock, monkeypatch: pytest.MonkeyPatch, error: Exception, state: str
) -> None:
    monkeypatch.setattr(BaseTask, "record_end", MagicMock())
    # A prefork worker is told of it in a result, the others of the error itself.
    a_request(task, now).on_success((1, failure(error), None))
    assert counted(task) == {state: 1}


def test_an_end_that_a_pool_reports_as_no_result_is_a_lost_process(
    task: Any, now: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a hook or a stock task that raised SystemExit (celery/concurrency/base.py)."""
    lost = MagicMock()
    monkeypatch.setattr(BaseTask, "record_end", lost)
    a_request(task, now).on_success(failure(WorkerLostError("SystemExit(3)")))
    a_request(task, now).on_failure(failure(SystemExit(3)))
    assert counted(task) == {TaskState.LOST: 2}
    assert [call.args[2] for call in lost.call_args_list] == [
        "WorkerLostError: SystemExit(3)",
        "WorkerLostError: the process of the task ended: SystemExit: 3",
    ]


def test_a_hard_time_limit_is_one_failure(task: Any, now: FakeClock) -> None:
    """Celery tells of it twice: of the limit, then of the child that it killed."""
    request = a_request(task, now)
    request.on_accepted(1, monotonic())
    request.on_timeout(soft=False, timeout=1)
    request.on_failure(failure(WorkerLostError("killed")))
    assert counted(task) == {TaskState.FAILED: 1}


def test_a_soft_time_limit_alone_is_no_end(task: Any, now: FakeClock) -> None:
    request = a_request(task, now)
    request.on_timeout(soft=True, timeout=1)
    succeed(request)
    assert counted(task) == {TaskState.SUCCEEDED: 1}


def test_a_task_revoked_before_its_start_has_no_duration(task: Any, now: FakeClock) -> None:
    request = a_request(task, now)
    request._announce_revoked("revoked", False, None, False)
    assert counted(task) == {TaskState.REVOKED: 1}
    assert value("celery_task_run_seconds_count", task=task.name, queue="email") == 0


def test_the_run_lasts_from_the_pools_start_to_its_end(task: Any, now: FakeClock) -> None:
    request = a_request(task, now)
    request.on_accepted(1, monotonic() - 7)
    succeed(request)
    assert value("celery_task_run_seconds_sum", task=task.name, queue="email") == pytest.approx(
        7, abs=1
    )


def test_the_wait_is_from_the_brokers_stamp_to_the_start(task: Any, now: FakeClock) -> None:
    a_request(task, now).on_accepted(1, monotonic())
    waited = value("celery_task_wait_seconds_sum", task=task.name, queue="email")
    assert waited == WAITED.total_seconds()


def test_the_wait_of_a_message_without_a_stamp_is_not_known(task: Any, now: FakeClock) -> None:
    a_request(task, now, stamped=False).on_accepted(1, monotonic())
    assert value("celery_task_wait_seconds_count", task=task.name, queue="email") == 0


def test_a_clock_behind_the_brokers_makes_no_negative_wait(task: Any, now: FakeClock) -> None:
    request = a_request(task, now)
    now.advance(seconds=-60)
    request.on_accepted(1, monotonic())
    assert value("celery_task_wait_seconds_sum", task=task.name, queue="email") == 0


def test_a_retry_is_counted_by_the_class_of_its_error(task: Any, now: FakeClock) -> None:
    for error in (ConnectionError("to ada@people.example"), None):
        a_request(task, now).on_success((1, failure(Retry("later", exc=error)), None))
    for reason in ("ConnectionError", "none"):
        assert value("celery_task_retries_total", task=task.name, reason=reason) == 1


def test_an_unknown_task_or_queue_gets_no_label_of_its_own(task: Any, now: FakeClock) -> None:
    metrics.ended("somebody.elses", "theirs", TaskState.SUCCEEDED, 1.0)
    succeed(a_request(task, now, queue="mistyped"))
    assert counted(task, "unknown") == {TaskState.SUCCEEDED: 1}
    assert "somebody.elses" not in all_labels()
    assert not {"theirs", "mistyped"} & all_labels()


def test_the_reasons_are_bounded(task: Any, now: FakeClock) -> None:
    for number in range(MAX_REASONS + 20):
        error = type(f"Error{number}", (Exception,), {})("x")
        metrics.retried(task.name, error)
    reasons = {
        sample.labels["reason"]
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.labels.get("task") == task.name
    }
    assert len(reasons) == MAX_REASONS + 1
    assert value("celery_task_retries_total", task=task.name, reason="other") == 20


def all_labels() -> set[str]:
    return {
        label
        for metric in REGISTRY.collect()
        for sample in metric.samples
        for label in sample.labels.values()
    }


def test_the_outcome_of_a_task_is_told_once_to_celery_as_well(task: Any, now: FakeClock) -> None:
    """Our ``on_success`` is wrapped round the one that Celery makes."""
    acknowledged = MagicMock()
    request = a_request(task, now)
    request._on_ack = acknowledged
    succeed(request)
    acknowledged.assert_called_once()


def test_the_event_of_a_failure_quotes_no_address(task: Any, now: FakeClock) -> None:
    eventer = MagicMock(enabled=True)
    request = a_request(task, now, eventer=eventer)
    try:
        raise ValueError("cannot greet ann.lee@mail.example")
    except ValueError:
        request.on_failure(ExceptionInfo())
    sent = str(eventer.send.call_args_list)
    assert "task-failed" in sent
    assert "cannot greet (left out)" in sent
    assert "ann.lee" not in sent
