"""Running a task as a worker's child does: through Celery's own tracer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app import trace
from app.outbox import DUE_INSTANT_HEADER, PUBLISHED_AT_HEADER
from app.outbox.broker import OutboxMessage
from app.tasks import celery_app, testing


@dataclass(frozen=True)
class Outcome:
    """What the worker's main process is told of one delivery."""

    state: str
    result: Any


def deliver(task: Any, message: OutboxMessage, *, redelivered: bool = False) -> Outcome:
    """Run the message's task as one delivery of it."""
    headers = {
        PUBLISHED_AT_HEADER: message.published_at.isoformat(),
        trace.HEADER: message.trace_id or trace.new(),
    }
    if message.due_instant is not None:
        headers[DUE_INSTANT_HEADER] = message.due_instant.isoformat()
    return _trace(
        task,
        message.id,
        message.args,
        retries=message.tries,
        redelivered=redelivered,
        priority=message.priority,
        **headers,
    )


def deliver_foreign(
    task: Any, task_id: str, *args: Any, redelivered: bool = False, retries: int = 0
) -> Outcome:
    """Run the task as a delivery of a message that did not come from the outbox."""
    return _trace(task, task_id, args, retries=retries, redelivered=redelivered)


def _trace(
    task: Any,
    task_id: str,
    args: Sequence[Any],
    *,
    retries: int,
    redelivered: bool,
    priority: int | None = None,
    **headers: str,
) -> Outcome:
    info = {
        "redelivered": redelivered,
        "exchange": "",
        "routing_key": "celery",
        "priority": priority,
    }
    ran = testing.run(
        celery_app, task.name, task_id, args, retries=retries, delivery_info=info, **headers
    )
    return Outcome(ran.state, ran.result)
