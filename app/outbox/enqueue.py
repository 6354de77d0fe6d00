"""Putting work into the outbox, in the caller's transaction."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from sqlalchemy import Engine, event, insert, select, text, update
from sqlalchemy.orm import Session, SessionTransaction

from app import clock, entropy, routing
from app.db import insert_for
from app.domain.nesting import DEEPEST, is_nested_too_deep
from app.models import OUTBOX_ENTRIES, OutboxEntry, OutboxState
from app.outbox import guard, publish
from app.outbox.ids import uuid7
from app.settings import load_settings

_DUE_NOW = "outbox: entries to publish after the transaction"
_INSERT = insert(OUTBOX_ENTRIES)

CallCheck = Callable[[str, Sequence[Any]], None]
_check_call: CallCheck | None = None


def check_calls(check: CallCheck | None) -> CallCheck | None:
    """Check the calls that this process enqueues with ``check``; return the old one.

    It gets a task's name and arguments, and raises ``ValueError`` or ``TypeError`` where the
    task is not registered or cannot take them. Without one, every call is accepted.
    """
    global _check_call
    replaced, _check_call = _check_call, check
    return replaced


def enqueue(
    session: Session,
    task: str,
    *args: Any,
    at: datetime | None = None,
    key: str | None = None,
    urgency: int | None = None,
    due_instant: datetime | None = None,
    unchecked: bool = False,
) -> str:
    """Plan a run of ``task`` with ``args``, and return the entry's id, which is the task id.

    The entry becomes real when the caller's transaction commits, and is published right
    after; a rollback leaves nothing. The task runs at least once, and its guarded effect
    exactly once, whatever happens to the broker in between.

    ``at`` (aware) is when it is due, at once where left out. With a ``key`` there is one
    entry that is not cancelled: a second call for that task changes nothing and returns
    the first one's id. ``urgency`` (0 to 9) overrides its queue's. ``due_instant`` (aware) is what
    the task finds as ``self.due_at``; ``at`` where left out. Arguments must be JSON.

    Where this process has imported ``app.tasks`` and all its modules, ``task`` must be
    registered and its signature must take ``args``. ``unchecked`` plans a task that only
    workers of another release have.

    Raises ``ValueError`` for a task that is not registered, and for a key that is empty, or
    that another task's entry has; ``TypeError`` for arguments that the task does not take or
    that are not JSON, and for Celery signatures: links, chords and groups are published by
    Celery itself, after our commit and outside its safety. Enqueue the next step in the
    transaction of the step before.
    """
    if not isinstance(task, str):
        raise TypeError(f"enqueue takes a task's name, not a {type(task).__name__}")
    if _check_call is not None and not unchecked:
        _check_call(task, args)
    now = clock.utcnow()
    entry_id = None
    while entry_id is None:
        entry_id = _insert(
            session,
            task,
            args,
            now=now,
            at=at,
            key=key,
            urgency=urgency,
            due_instant=due_instant,
        )
        if entry_id is None:
            existing = session.execute(
                select(OutboxEntry.id, OutboxEntry.task).where(
                    OutboxEntry.key == key, OutboxEntry.state != OutboxState.CANCELLED
                )
            ).one_or_none()
            if existing is not None:
                existing_id, of_task = existing
                if of_task != task:
                    raise ValueError(
                        f"the key {key!r} of {task} is taken by an entry of {of_task}: "
                        "begin it with what the work is"
                    )
                return existing_id
            # Somebody cancelled it between the two statements: the key is free again.
    if at is None or at <= now:
        session.info.setdefault(_DUE_NOW, []).append(entry_id)
    return entry_id


def enqueue_run(
    session: Session,
    task: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    due_instant: datetime,
    queue: str | None = None,
    priority: int | None = None,
) -> str:
    """Plan the run of a beat entry for one of its due instants; returns the entry's id.

    ``queue`` and ``priority`` (on the wire) override those of its task. Raises as
    ``enqueue`` does.
    """
    entry_id = _insert(
        session,
        task,
        args,
        kwargs,
        now=clock.utcnow(),
        due_instant=due_instant,
        queue=queue,
        priority=priority,
    )
    assert entry_id is not None  # noqa: S101 - without a key there is no conflict
    session.info.setdefault(_DUE_NOW, []).append(entry_id)
    return entry_id


def bury_new(session: Session, task: str, *args: Any, error: str) -> str:
    """Insert a dead letter for work that failed inside another task; return its id.

    It can be seen and retried like one that died itself. Raises as ``enqueue`` does.
    """
    now = clock.utcnow()
    entry_id = _insert(session, task, args, now=now)
    assert entry_id is not None  # noqa: S101 - without a key there is no conflict
    guard.bury(session, guard.Delivery(entry_id, task), error=error, now=now)
    return entry_id


def _insert(
    session: Session,
    task: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] = MappingProxyType({}),
    *,
    now: datetime,
    at: datetime | None = None,
    key: str | None = None,
    urgency: int | None = None,
    due_instant: datetime | None = None,
    queue: str | None = None,
    priority: int | None = None,
) -> str | None:
    for name, instant in (("at", at), ("due_instant", due_instant)):
        if instant is not None and instant.tzinfo is None:
            raise TypeError(f"{name}={instant!r} is naive: pass an aware instant, such as in UTC")
    if key == "":
        raise ValueError(f"the key of {task} is empty: leave it out, or let it name the work")
    check_arguments(task, args, kwargs)

    spec = routing.queue_for(task)
    if priority is None:
        priority = routing.wire_priority(spec.urgency if urgency is None else urgency)
    entry_id = uuid7(now, entropy.rng())
    values = {
        "id": entry_id,
        "task": task,
        "args": list(args),
        "kwargs": dict(kwargs),
        "key": key,
        "queue": queue or spec.name,
        "priority": priority,
        "created_at": now,
        "due_at": now if at is None else at,
        "due_instant": due_instant or at or now,
    }
    if key is None:
        session.execute(_INSERT, values)
        return entry_id
    inserted: str | None = session.scalar(_insert_once(insert_for(session)), values)
    return inserted


def check_arguments(task: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Raise ``TypeError`` for arguments that are not JSON, and for Celery signatures.

    Also for those nested too deep for a worker, and ``ValueError`` for those that are longer
    than ``MAX_ARGUMENT_BYTES``: the message of either could not be published, or not be read.
    """
    for position, arg in (*enumerate(args), *kwargs.items()):
        if hasattr(arg, "apply_async"):
            raise TypeError(
                f"argument {position} of {task} is a Celery signature: enqueue its task by name"
            )
    # The body of their message, without what Celery adds.
    body = [args, dict(kwargs)]
    try:
        text = json.dumps(body, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TypeError(f"the arguments of {task} are not JSON: {error}") from error
    except RecursionError:
        too_deep = True
    else:
        too_deep = is_nested_too_deep(body, brackets=text.count("[") + text.count("{"))
    if too_deep:
        raise TypeError(
            f"the arguments of {task} are nested deeper than {DEEPEST} levels: "
            "store them in a table and pass the row's id"
        )
    limit = load_settings().max_argument_bytes
    if len(text) > limit:
        raise ValueError(
            f"the arguments of {task} are {len(text):,} bytes of JSON, at most {limit:,} are "
            "taken: store them in a table and pass the row's id"
        )


@lru_cache
def _insert_once(insert_or_not: Any) -> Any:
    return (
        insert_or_not(OUTBOX_ENTRIES)
        .on_conflict_do_nothing(
            index_elements=[OUTBOX_ENTRIES.c.key], index_where=text("state <> 'cancelled'")
        )
        .returning(OUTBOX_ENTRIES.c.id)
    )


def cancel(session: Session, *, key: str) -> bool:
    """Cancel the pending entry with ``key``; whether there was one.

    A task that is running at this moment finishes: its guard comes first or this does,
    never both.
    """
    cancelled = session.scalars(
        update(OutboxEntry)
        .where(OutboxEntry.key == key, OutboxEntry.state == OutboxState.PENDING)
        .values(state=OutboxState.CANCELLED, finished_at=clock.utcnow())
        .returning(OutboxEntry.id)
    ).all()
    return bool(cancelled)


@event.listens_for(Session, "after_transaction_end")
def _publish_after_transaction(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is not None:
        return
    entry_ids = session.info.pop(_DUE_NOW, None)
    if not entry_ids:
        return
    # After a rollback too: there publishing finds no entry to publish.
    bind = session.get_bind(OutboxEntry)
    # Bound to a connection, the session ended inside somebody's larger transaction.
    if isinstance(bind, Engine):
        publish.after_commit(bind, entry_ids)
