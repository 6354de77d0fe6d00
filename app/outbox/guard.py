"""What a task says to its entry: done, put back, or dead; each by a conditional update.

Everything here compares the state that it changes, so of two deliveries of one message
only one has an effect, on SQLite and at READ COMMITTED on PostgreSQL.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, select, update
from sqlalchemy.orm import Session

from app import routing
from app.db import insert_for
from app.domain import personal_data
from app.models import OUTBOX_ENTRIES, OutboxEntry, OutboxState

MAX_ERROR_LENGTH = 500
MAX_TRACEBACK_LENGTH = 20_000
# A search in a text of megabytes takes seconds. An address cut in two lies far outside of
# what is kept.
_LONGEST_READ = 5 * MAX_TRACEBACK_LENGTH

_entries = OUTBOX_ENTRIES.c
_delivered = (_entries.id == bindparam("delivered_id"), _entries.task == bindparam("of_task"))
_STATE = select(_entries.state).where(*_delivered)
_FINISH = (
    update(OUTBOX_ENTRIES)
    .where(*_delivered, OutboxEntry.pending())
    .values(state=bindparam("end"), finished_at=bindparam("now"))
    .returning(_entries.id)
)


@dataclass(frozen=True)
class Delivery:
    """A message as its worker got it."""

    id: str
    task: str
    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)
    from_outbox: bool = True
    """Whether it carries the outbox's header; false for ``celery call`` and the like."""
    tries: int = 0
    """How often the work had been put back when this message was published."""


class AlreadyDoneError(Exception):
    """Another delivery of this message had its effect, or its entry is cancelled or gone."""


def mark_done(session: Session, delivery: Delivery, *, now: datetime) -> None:
    """Mark the delivery's entry done, in the transaction of its effect.

    Comes first in that transaction: it takes the lock that a second delivery waits for.
    A message from elsewhere gets an entry of its own here. Raises ``AlreadyDoneError``
    where the effect must not happen again.
    """
    if _finish(session, delivery, OutboxState.DONE, now=now):
        return
    if delivery.from_outbox or not _adopt(session, delivery, OutboxState.DONE, now=now):
        raise AlreadyDoneError(delivery.id)


def close(session: Session, delivery: Delivery, *, now: datetime) -> bool:
    """Mark a pending entry done after a body that had no guard; whether there was one."""
    return _finish(session, delivery, OutboxState.DONE, now=now)


def lose(
    session: Session, delivery: Delivery, *, limit: int, due_at: datetime, error: str, now: datetime
) -> bool:
    """Put an entry back whose process was killed, or bury it at the ``limit``-th time.

    Returns whether it was put back.
    """
    deliveries = session.scalar(
        select(OutboxEntry.deliveries).where(_is_pending_row(delivery)).with_for_update()
    )
    if deliveries is None:
        return False
    if deliveries + 1 >= limit:
        bury(session, delivery, error=error, now=now)
        return False
    return put_back(
        session, delivery, due_at=due_at, error=error, now=now, deliveries=deliveries + 1
    )


def is_pending(session: Session | Connection, delivery: Delivery) -> bool:
    """Whether the delivery's work is still to be done: asked before its body runs."""
    state = session.scalar(_STATE, {"delivered_id": delivery.id, "of_task": delivery.task})
    if state is None:
        return not delivery.from_outbox
    return state is OutboxState.PENDING


def count_redelivery(session: Session, delivery: Delivery, *, now: datetime) -> int:
    """Count the start of a redelivered message, and return how many there were in this try.

    Must commit before the task's body runs: the body may be what kills the worker. A
    message from elsewhere gets an entry at its first redelivery and is durable from then on.
    """
    if not delivery.from_outbox:
        _adopt(session, delivery, OutboxState.PENDING, now=now)
    deliveries = session.scalar(
        update(OutboxEntry)
        .where(_is_pending_row(delivery))
        .values(deliveries=OutboxEntry.deliveries + 1)
        .returning(OutboxEntry.deliveries)
    )
    return deliveries or 0


def put_back(
    session: Session,
    delivery: Delivery,
    *,
    due_at: datetime,
    error: str,
    now: datetime,
    args: list[Any] | None = None,
    kwargs: dict[str, Any] | None = None,
    deliveries: int = 0,
) -> bool:
    """Plan the next try at ``due_at``, with other arguments where given.

    ``deliveries`` is where their count starts again: not at 0 where the try did not end in
    an orderly way. Returns whether this delivery was the one to do so.
    """
    entry = session.scalar(
        select(OutboxEntry)
        .where(_is_pending_row(delivery), OutboxEntry.tries == delivery.tries)
        .with_for_update()
    )
    if entry is None:
        return False
    entry.due_at = due_at
    entry.args = entry.args if args is None else args
    entry.kwargs = entry.kwargs if kwargs is None else kwargs
    entry.tries += 1
    entry.retrying_since = entry.retrying_since or now
    entry.waits_for = None
    entry.published_at = None
    entry.publishes = 0
    entry.deliveries = deliveries
    entry.errors = [*entry.errors, _error(now, error)]
    return True


def bury(
    session: Session,
    delivery: Delivery,
    *,
    error: str,
    now: datetime,
    traceback: str | None = None,
) -> bool:
    """Make the entry a dead letter; whether it was pending in this try (or had no entry).

    A delivery of an earlier try has no say: the entry waits for its next one.
    """
    in_this_try = OutboxEntry.tries == delivery.tries
    if not delivery.from_outbox:
        _adopt(session, delivery, OutboxState.PENDING, now=now)
        # Celery's own retries are counted in its messages, not in the entry.
        in_this_try = OutboxEntry.tries <= delivery.tries
    entry = session.scalar(
        select(OutboxEntry).where(_is_pending_row(delivery), in_this_try).with_for_update()
    )
    if entry is None:
        return False
    mark_dead(entry, error=error, now=now, traceback=traceback)
    return True


def refuse(session: Session, delivery: Delivery, *, error: str, now: datetime) -> bool:
    """Make a dead letter of a message that no task can be given; as ``bury`` does.

    An entry of the outbox is found by the message's id alone: what else the message says
    may be as broken as its body.
    """
    if delivery.from_outbox:
        task = session.scalar(select(OutboxEntry.task).where(OutboxEntry.id == delivery.id))
        if task is None:
            return False
        delivery = replace(delivery, task=task)
    return bury(session, delivery, error=error, now=now)


def postpone(
    session: Session, delivery: Delivery, *, limit: int, due_at: datetime, error: str, now: datetime
) -> bool:
    """Put work back that nobody here can do yet, or bury it after ``limit`` tries.

    A message from elsewhere gets an entry and is durable from then on. Returns whether it
    was put back.
    """
    if delivery.tries >= limit:
        bury(session, delivery, error=error, now=now)
        return False
    if not delivery.from_outbox:
        _adopt(session, delivery, OutboxState.PENDING, now=now)
    return put_back(session, delivery, due_at=due_at, error=error, now=now)


def wait(session: Session, delivery: Delivery, *, due_at: datetime, waits_for: str) -> bool:
    """Publish the delivery's work again at ``due_at`` (UTC), without counting a try.

    For a message that came too early. ``waits_for`` is the reason in a few words, which
    operators see. It stays until the attempt is rescheduled: an attempt that was postponed has
    not begun, also while its message waits in a queue. Returns whether the entry waits now:
    False where it is no longer pending, or in another try.
    """
    postponed = session.scalar(
        update(OutboxEntry)
        .where(_is_pending_row(delivery), OutboxEntry.tries == delivery.tries)
        .values(due_at=due_at, published_at=None, publishes=0, waits_for=waits_for)
        .returning(OutboxEntry.id)
        .execution_options(synchronize_session=False)
    )
    return postponed is not None


def mark_dead(
    entry: OutboxEntry, *, error: str, now: datetime, traceback: str | None = None
) -> None:
    """Make a dead letter of an entry whose row the caller has locked."""
    entry.state = OutboxState.DEAD
    entry.finished_at = now
    entry.errors = [*entry.errors, _error(now, error, traceback)]


def cancel(session: Session, entry_id: str, *, now: datetime) -> bool:
    """Cancel a pending entry, whatever its task; whether it was pending."""
    cancelled = session.scalar(
        update(OutboxEntry)
        .where(OutboxEntry.id == entry_id, OutboxEntry.pending())
        .values(state=OutboxState.CANCELLED, finished_at=now)
        .returning(OutboxEntry.id)
    )
    return cancelled is not None


def _is_pending_row(delivery: Delivery) -> Any:
    return (
        (OutboxEntry.id == delivery.id)
        & (OutboxEntry.task == delivery.task)
        & (OutboxEntry.pending())
    )


def _finish(session: Session, delivery: Delivery, state: OutboxState, *, now: datetime) -> bool:
    finished = session.scalar(
        _FINISH,
        {"delivered_id": delivery.id, "of_task": delivery.task, "end": state, "now": now},
    )
    return finished is not None


def _adopt(session: Session, delivery: Delivery, state: OutboxState, *, now: datetime) -> bool:
    """Insert an entry for a message that came without one; whether there was none."""
    queue = routing.queue_for(delivery.task)
    adopted = session.scalar(
        insert_for(session)(OutboxEntry)
        .values(
            id=delivery.id,
            task=delivery.task,
            args=delivery.args,
            kwargs=delivery.kwargs,
            queue=queue.name,
            priority=routing.wire_priority(queue.urgency),
            state=state,
            created_at=now,
            due_at=now,
            published_at=now,
            finished_at=now if state is OutboxState.DONE else None,
            publishes=1,
            tries=delivery.tries,
        )
        .on_conflict_do_nothing(index_elements=[OutboxEntry.id])
        .returning(OutboxEntry.id)
    )
    return adopted is not None


def storable(text: str) -> str:
    """Return ``text`` with escapes for what PostgreSQL does not store in JSON."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def _error(now: datetime, error: str, traceback: str | None = None) -> dict[str, str]:
    record = {"at": now.isoformat(), "error": _kept(error[:_LONGEST_READ])[:MAX_ERROR_LENGTH]}
    if traceback:
        record["traceback"] = _kept(traceback[-_LONGEST_READ:])[-MAX_TRACEBACK_LENGTH:]
    return record


def _kept(text: str) -> str:
    return personal_data.leave_out(storable(text))
