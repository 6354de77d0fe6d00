"""What a task's log lines and messages carry: which task it is, and whose trace it belongs to.

Bound to context variables where the task runs, so it is right in a prefork child, in a
thread, in a greenlet and in the solo pool's only thread; lines that the worker's main
process logs about a task get the same.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from weakref import WeakValueDictionary

from celery import signals

from app import trace

FIELDS = ("task", "task_id", "queue", "retries", trace.HEADER)
"""What each line about a task has."""

# Task, id and message. One variable, and its fields are made where a line is logged: it is
# set several times for each task, and most say nothing.
_in_hand: ContextVar[tuple[str, str, Mapping[str, Any]] | None] = ContextVar("task", default=None)

# Requests of the worker's main process by task id, for as long as the worker keeps them.
_received: WeakValueDictionary[str, Any] = WeakValueDictionary()


def connect() -> None:
    """Bind the context of each task that this process or its children run."""
    signals.task_prerun.connect(_begin, weak=False)
    signals.task_postrun.connect(_end, weak=False)
    signals.before_task_publish.connect(_pass_on, weak=False)


def current() -> Mapping[str, Any]:
    """What lines say of the task in hand; nothing where there is none."""
    in_hand = _in_hand.get()
    return {} if in_hand is None else _fields(*in_hand)


def received(request: Any) -> None:
    """Remember a request of the worker's main process, for the lines about it."""
    _received[request.id] = request


def request_of(task_id: object) -> Any:
    """The request of a task that this worker has received and still keeps, else ``None``."""
    return _received.get(task_id) if isinstance(task_id, str) else None


def of(task_id: object) -> Mapping[str, Any]:
    """What lines about a task say that this worker has received; nothing of any other."""
    request = request_of(task_id)
    if request is None:
        return {}
    return _fields(request.task.name, request.id, request.request_dict)


@contextmanager
def about(request: Any) -> Iterator[None]:
    """Say in each line that is logged inside which task it is about."""
    token = _in_hand.set((request.task.name, request.id, request.request_dict))
    try:
        yield
    finally:
        _in_hand.reset(token)


def _fields(task: str, task_id: str, message: Mapping[str, Any]) -> dict[str, Any]:
    queue = (message.get("delivery_info") or {}).get("routing_key")
    retries = message.get("retries") or 0
    values = (task, task_id, queue, retries, message.get(trace.HEADER))
    return dict(zip(FIELDS, values, strict=True))


def _begin(task_id: str, task: Any, **_: Any) -> None:
    request = task.request
    in_force = trace.begin(request.get(trace.HEADER))
    in_hand = _in_hand.set(
        (task.name, task_id, vars(request) | {trace.HEADER: trace.current()}),
    )
    # Kept with the run: an eager task inside another one ends before it.
    request.update(log_context=(in_force, in_hand))


def _end(task: Any, **_: Any) -> None:
    context = task.request.get("log_context")
    if context is not None:
        in_force, in_hand = context
        _in_hand.reset(in_hand)
        trace.end(in_force)


def _pass_on(headers: dict[str, Any] | None = None, **_: Any) -> None:
    # Also into what a stock producer publishes, and what Celery retries by itself.
    if headers is not None and headers.get(trace.HEADER) is None:
        headers[trace.HEADER] = trace.current()
