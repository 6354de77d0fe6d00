"""What a worker or beat counts of its own work; ``deployment_metrics`` tells of the rest.

Counted in the main process, from what it is told of each task, so a child that ends takes
nothing with it. (The multiprocess mode of prometheus_client leaves a file for each child
that ever was, and does nothing where Flower's plug-in has imported it before us.)

Labels are of bounded sets: names of tasks and queues that this deployment has, and the
classes of the first ``MAX_REASONS`` kinds of errors.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any

from celery import current_app
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
)

from app import clock, routing

UNKNOWN = "unknown"
OTHER = "other"
MAX_REASONS = 30

REGISTRY = CollectorRegistry()

# Each counter would bring a second series, with the instant of its first increment.
disable_created_metrics()  # type: ignore[no-untyped-call]

RUN_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
WAIT_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)


class TaskState(StrEnum):
    """How a run ended."""

    SUCCEEDED = "succeeded"
    SKIPPED = "skipped"
    """Another delivery had done it: the body did not run, or its effect was rolled back."""
    RETRIED = "retried"
    FAILED = "failed"
    """By an error that is not retried, or a time limit."""
    DEAD = "dead"
    """Buried before its body, because it was redelivered too often."""
    LOST = "lost"
    """The process that ran it was killed."""
    REVOKED = "revoked"
    IGNORED = "ignored"
    """The body gave the message up, or the worker gave it back in an outage of the database."""


TASKS = Counter(
    "celery_tasks_total",
    "Runs of tasks that have ended in this process, by how they ended.",
    ["task", "queue", "state"],
    registry=REGISTRY,
)
RUN_SECONDS = Histogram(
    "celery_task_run_seconds",
    "Seconds from the start of a run in the pool to its end, however it ended.",
    ["task", "queue"],
    buckets=RUN_BUCKETS,
    registry=REGISTRY,
)
WAIT_SECONDS = Histogram(
    "celery_task_wait_seconds",
    "Seconds from the publication of an outbox message (Redis's clock) to its start (ours).",
    ["task", "queue"],
    buckets=WAIT_BUCKETS,
    registry=REGISTRY,
)
RETRIES = Counter(
    "celery_task_retries_total",
    "Retries that this process planned, by the class of the error.",
    ["task", "reason"],
    registry=REGISTRY,
)
RESENT = Counter(
    "outbox_resent_total",
    "Messages that were gone from the broker and that this process published again.",
    registry=REGISTRY,
)

_reasons: set[str] = set()
_tasks: set[str] = set()


def task_label(task: str) -> str:
    """The task's name, if it is one of this app's."""
    # Asked several times for each task, and the registry is behind two proxies.
    if task not in _tasks:
        if task not in current_app.tasks:
            return UNKNOWN
        _tasks.add(task)
    return task


def queue_label(queue: object) -> str:
    """The queue's name, if the table has it."""
    return queue if isinstance(queue, str) and routing.is_queue(queue) else UNKNOWN


def started(task: str, queue: object, published_at: object) -> None:
    """Count the wait of a message with the outbox's stamp; of others nobody knows it."""
    try:
        published = datetime.fromisoformat(str(published_at))
        waited = (clock.utcnow() - published).total_seconds()
    except (ValueError, TypeError):
        return
    # Two clocks: ours may be a little behind Redis's.
    WAIT_SECONDS.labels(task_label(task), queue_label(queue)).observe(max(0.0, waited))


def ended(task: str, queue: object, state: TaskState, seconds: float | None) -> None:
    """Count a run; ``seconds`` is how long it took, ``None`` where it was never started."""
    TASKS.labels(task_label(task), queue_label(queue), state).inc()
    if seconds is not None:
        RUN_SECONDS.labels(task_label(task), queue_label(queue)).observe(max(0.0, seconds))


def retried(task: str, error: object) -> None:
    """Count a retry; ``error`` is what made it necessary, ``None`` where the body just asked."""
    RETRIES.labels(task_label(task), _reason(error)).inc()


def _reason(error: Any) -> str:
    # One that cannot be pickled comes from a child in a wrapper.
    name = "none" if error is None else getattr(error, "exc_cls_name", type(error).__name__)
    if name not in _reasons and len(_reasons) >= MAX_REASONS:
        return OTHER
    _reasons.add(name)
    return name
