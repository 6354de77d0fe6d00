"""For tests of whoever plans work: was it planned, and what does it do? Without a broker.

    def test_a_booking_is_confirmed_by_mail(session):
        with without_broker():
            booking = book(session)
            assert_enqueued(session, send_booking_confirmation, booking.id)
            session.commit()
            drain()

See docs/testing.md.
"""

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from weakref import WeakKeyDictionary

from celery import Celery, Task, states
from celery.app.trace import build_tracer
from celery.exceptions import NotRegistered
from sqlalchemy import Connection, Engine, event, select
from sqlalchemy.orm import Session

from app import clock, db, outbox, trace
from app.models import OutboxEntry
from app.outbox import DUE_INSTANT_HEADER, PUBLISHED_AT_HEADER
from app.outbox.guard import Delivery
from app.tasks.celery_app import celery_app
from app.tasks.consumer import postpone_unknown

MOST_RUNS = 1000
"""Of one drain: work that plans itself again and again ends here."""

FAILED = frozenset({states.FAILURE, states.REJECTED})
"""Of what a worker reports: these make a dead letter."""


@dataclass(frozen=True)
class Ran:
    """One run of a task, as a worker would report it."""

    id: str
    task: str
    args: tuple[Any, ...]
    state: str
    """SUCCESS, RETRY, FAILURE, REJECTED or IGNORED: ``celery.states``."""
    result: Any
    """What the task returned, or the exception that ended it."""


class TooManyRunsError(AssertionError):
    """Work was still due after as many runs as were allowed."""


class UncommittedWorkError(AssertionError):
    """Work was planned in a transaction that is still open: ``drain`` would not run it."""


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
    and not committed. Arguments are compared as JSON keeps them: a tuple is a list, and the key 1
    is "1". Raises ``TypeError`` for arguments and instants that ``enqueue`` refuses.
    """
    name = task if isinstance(task, str) else task.name
    if at is not None and at.tzinfo is None:
        raise TypeError(f"at={at!r} is naive: pass an aware instant, such as in UTC")
    try:
        kept = json.loads(json.dumps(args, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise TypeError(f"the arguments of {name} are not JSON: {error}") from error
    pending = _pending(where)
    found = [
        entry
        for entry in pending
        if entry.task == name
        and (not args or _same(entry.args, kept))
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

    Work of a task that is not registered is postponed, as a worker does that does not know it:
    its run is a RETRY with ``NotRegistered``.

    A task that fails becomes a dead letter, and its error is raised here; with
    ``failures=True`` it is in what is returned. An end that no worker's pool could handle,
    such as ``SystemExit``, is an ``AttemptError`` here as it is there. Raises
    ``TooManyRunsError`` after ``most`` runs, and ``UncommittedWorkError`` where this thread has
    planned work in a transaction that is still open, which the tasks cannot see.
    """
    app.loader.import_default_modules()
    _refuse_uncommitted_work()
    ran: list[Ran] = []
    with without_broker():
        while (entry := _next(retries)) is not None:
            if len(ran) == most:
                raise TooManyRunsError(
                    f"{entry.task} would be run number {most + 1}: does it plan itself?"
                )
            outcome = _deliver(app, entry)
            ran.append(outcome)
            if outcome.state in FAILED and not failures:
                raise outcome.result
    return ran


_begun: WeakKeyDictionary[Connection, int] = WeakKeyDictionary()
"""Connections on which a session has begun a transaction, each with its thread."""


@event.listens_for(Session, "after_begin")
def _note_connection(_session: Session, _transaction: object, connection: Connection) -> None:
    _begun[connection] = threading.get_ident()


def _refuse_uncommitted_work() -> None:
    pending = select(OutboxEntry.id, OutboxEntry.task).where(OutboxEntry.pending())
    for connection, thread in list(_begun.items()):
        if (
            thread != threading.get_ident()
            or connection.closed
            or not connection.in_transaction()
            or connection.engine.url != db.engine().url
        ):
            continue
        with db.reading() as session:
            committed = set(session.scalars(pending))
        hidden = [
            task for entry_id, task in connection.execute(pending) if entry_id not in committed
        ]
        if hidden:
            count = "1 entry" if len(hidden) == 1 else f"{len(hidden)} entries"
            raise UncommittedWorkError(
                f"{count}, {', '.join(sorted(set(hidden)))}, in a transaction that is still open: "
                "tasks have transactions of their own and cannot see it. Commit it before drain(). "
                "If the session joined a transaction of the test, bind it to the engine instead"
            )


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
    if entry.task not in app.tasks:
        delivery = Delivery(entry.id, entry.task, from_outbox=True, tries=entry.tries)
        with db.transaction() as session:
            postponed = postpone_unknown(session, delivery)
        state = states.RETRY if postponed else states.FAILURE
        return Ran(entry.id, entry.task, tuple(entry.args), state, NotRegistered(entry.task))
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


def _same(one: Any, other: Any) -> bool:
    """Whether two values are the same in JSON, which tells 1 from true."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


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
