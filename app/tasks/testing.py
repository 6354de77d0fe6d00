"""For tests of whoever plans work: was it planned, and what does it do? Without a broker.

    def test_a_booking_is_confirmed_by_mail(session):
        with without_broker():
            booking = book(session)
            assert_enqueued(session, send_booking_confirmation, booking.id)
            session.commit()
            drain()

See docs/testing.md.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from celery import Celery, Task, states
from celery.app.trace import build_tracer
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from app import clock, db, outbox, trace
from app.models import OutboxEntry
from app.outbox import DUE_INSTANT_HEADER, PUBLISHED_AT_HEADER
from app.tasks.celery_app import celery_app

MOST_RUNS = 1000
"""Of one drain: work that plans itself again and again ends here."""


@dataclass(frozen=True)
class Ran:
    """One run of a task, as a worker would report it."""

    id: str
    task: str
    args: tuple[Any, ...]
    state: str
    """SUCCESS, RETRY, FAILURE or IGNORED: ``celery.states``."""
    result: Any
    """What the task returned, or the exception that ended it."""


class TooManyRunsError(AssertionError):
    """Work was still due after as many runs as were allowed."""


@contextmanager
def without_broker() -> Iterator[None]:
    """Let nothing be published after a commit: it waits in the outbox until ``drain``."""
    attached = outbox.attach(None)
    try:
        yield
    finally:
        outbox.attach(attached)


def assert_enqueued(
    where: Session | Engine,
    task: Task[..., Any] | str,
    *args: Any,
    at: datetime | None = None,
    key: str | None = None,
    times: int = 1,
) -> None:
    """Fail unless ``task`` is pending in the outbox with ``args``, exactly ``times`` times.

    Without ``args`` any arguments will do; ``at`` (aware, when it is due) and ``key`` are
    compared where they are given. A session also sees what its own transaction has planned
    and not committed.
    """
    name = task if isinstance(task, str) else task.name
    pending = _pending(where)
    found = [
        entry
        for entry in pending
        if entry.task == name
        and (not args or entry.args == list(args))
        and (at is None or entry.due_at == at)
        and (key is None or entry.key == key)
    ]
    if len(found) == times:
        return
    wanted = name if not args else f"{name}{args}"
    wanted += f" at {at}" if at is not None else ""
    wanted += f" with the key {key!r}" if key is not None else ""
    listed = "".join(f"\n  {_line(entry)}" for entry in pending) or " nothing"
    raise AssertionError(
        f"{wanted} is pending {len(found)} times, not {times}; pending in the outbox:{listed}"
    )


def drain(
    *, retries: int = 3, failures: bool = False, most: int = MOST_RUNS, app: Celery = celery_app
) -> list[Ran]:
    """Run the due work of the outbox in this process, and all that it plans; say what ran.

    Each entry goes through Celery's own tracer with the real guard, the most urgent first,
    as one worker would take it, on the database in force and at the time of ``app.clock``.
    Work for later stays where it is. A retry is run at once, without its wait, up to
    ``retries`` times for each entry.

    A task that fails becomes a dead letter, and its error is raised here; with
    ``failures=True`` it is in what is returned. Raises ``TooManyRunsError`` after ``most``
    runs.
    """
    app.loader.import_default_modules()
    ran: list[Ran] = []
    with without_broker():
        while (entry := _next(retries)) is not None:
            if len(ran) == most:
                raise TooManyRunsError(
                    f"{entry.task} would be run number {most + 1}: does it plan itself?"
                )
            outcome = _deliver(app, entry)
            ran.append(outcome)
            if outcome.state == states.FAILURE and not failures:
                raise outcome.result
    return ran


def run(
    app: Celery,
    name: str,
    task_id: str,
    args: Sequence[Any],
    kwargs: dict[str, Any] | None = None,
    **request: Any,
) -> Ran:
    """Run one delivery as a worker's child does; ``request`` is what its message carries."""
    task: Any = app.tasks[name]
    request = {
        "id": task_id,
        "args": list(args),
        "kwargs": kwargs or {},
        "retries": 0,
        "ignore_result": True,
        "is_eager": False,
        "called_directly": False,
        "delivery_info": {"redelivered": False, "exchange": "", "routing_key": "celery"},
        **request,
    }
    tracer = build_tracer(name, task, app=app)
    result, info, *_ = tracer(task_id, list(args), kwargs or {}, request)
    if info is None:
        return Ran(task_id, name, tuple(args), states.SUCCESS, result)
    return Ran(task_id, name, tuple(args), info.state, info.retval)


def _next(retries: int) -> OutboxEntry | None:
    """The pending entry that a worker would take first; retries need not be due yet."""
    due = OutboxEntry.due_at <= clock.utcnow()
    put_back = OutboxEntry.tries.between(1, retries)
    with db.reading() as session:
        return session.scalar(
            select(OutboxEntry)
            .where(OutboxEntry.pending(), put_back | (due & (OutboxEntry.tries == 0)))
            .order_by(OutboxEntry.priority, OutboxEntry.due_at, OutboxEntry.id)
            .limit(1)
        )


def _deliver(app: Celery, entry: OutboxEntry) -> Ran:
    headers = {
        PUBLISHED_AT_HEADER: clock.utcnow().isoformat(),
        DUE_INSTANT_HEADER: (entry.due_instant or entry.due_at).isoformat(),
        trace.HEADER: entry.trace_id or trace.new(),
    }
    info = {"redelivered": False, "exchange": "", "routing_key": entry.queue}
    return run(
        app,
        entry.task,
        entry.id,
        entry.args,
        entry.kwargs,
        retries=entry.tries,
        delivery_info=info,
        **headers,
    )


def _pending(where: Session | Engine) -> Sequence[OutboxEntry]:
    chosen = (
        select(OutboxEntry)
        .where(OutboxEntry.pending())
        .order_by(OutboxEntry.due_at, OutboxEntry.id)
        .execution_options(populate_existing=True)
    )
    if isinstance(where, Session):
        return where.scalars(chosen).all()
    with Session(where.execution_options(reads_only=True)) as session:
        return session.scalars(chosen).all()


def _line(entry: OutboxEntry) -> str:
    arguments = ", ".join(map(repr, entry.args))
    key = f", key {entry.key!r}" if entry.key is not None else ""
    return f"{entry.task}({arguments}), due at {entry.due_at:%Y-%m-%d %H:%M:%S} UTC{key}"
