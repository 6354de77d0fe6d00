"""The outbox at one look."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from app.models import OutboxEntry, OutboxState


@dataclass(frozen=True)
class Status:
    """How many entries there are of each kind, and how long the oldest waits."""

    pending: int = 0
    """Still to be done: published, unpublished and later together."""
    published: int = 0
    """Handed to the broker: they wait in a queue, or a worker has them."""
    unpublished: int = 0
    """Due, and not handed to the broker."""
    later: int = 0
    """Not due yet: planned ahead, or waiting for a retry."""
    resent: int = 0
    """How often a message was gone from the broker and was published again."""
    done: int = 0
    dead: int = 0
    cancelled: int = 0
    oldest: timedelta | None = None
    """For how long the oldest pending entry has been due; ``None`` where none is."""
    oldest_unpublished: timedelta | None = None
    """The same among the unpublished ones: beyond seconds, no pump works."""


def read(session: Session, *, now: datetime) -> Status:
    """Count the entries. Reads the whole table: for a person, not for every minute."""
    states = dict[OutboxState, int]()
    resent = 0
    for state, number, again in session.execute(
        select(OutboxEntry.state, func.count(), func.sum(OutboxEntry.resent)).group_by(
            OutboxEntry.state
        )
    ):
        states[state] = number
        resent += again
    published, published_since = _waiting(session, OutboxEntry.published_at.is_not(None))
    unpublished, unpublished_since = _waiting(
        session, OutboxEntry.published_at.is_(None), OutboxEntry.due_at <= now
    )
    pending = states.get(OutboxState.PENDING, 0)
    since = [instant for instant in (published_since, unpublished_since) if instant is not None]
    return Status(
        pending=pending,
        published=published,
        unpublished=unpublished,
        later=max(0, pending - published - unpublished),
        resent=resent,
        done=states.get(OutboxState.DONE, 0),
        dead=states.get(OutboxState.DEAD, 0),
        cancelled=states.get(OutboxState.CANCELLED, 0),
        oldest=_age(min(since, default=None), now),
        oldest_unpublished=_age(unpublished_since, now),
    )


def entry(session: Session, entry_id: str) -> OutboxEntry | None:
    """The entry with this id, whatever its state."""
    return session.get(OutboxEntry, entry_id)


def pending(
    session: Session, *, task: str | None = None, limit: int | None = None
) -> list[OutboxEntry]:
    """Entries that are still to be done, the longest due first; of ``task`` alone where given.

    Reads the whole table, as ``read`` does.
    """
    return list(
        session.scalars(
            select(OutboxEntry)
            .where(OutboxEntry.pending(), *_of(task))
            .order_by(OutboxEntry.due_at, OutboxEntry.id)
            .limit(limit)
        )
    )


def count_pending(session: Session, *, task: str | None = None) -> int:
    """How many ``pending`` finds."""
    number, _ = _waiting(session, *_of(task))
    return number


def _of(task: str | None) -> tuple[ColumnElement[bool], ...]:
    return () if task is None else (OutboxEntry.task == task,)


def _waiting(session: Session, *conditions: ColumnElement[bool]) -> tuple[int, datetime | None]:
    """How many pending entries meet the conditions, and when the first of them was due."""
    number, first = session.execute(
        select(func.count(), func.min(OutboxEntry.due_at)).where(OutboxEntry.pending(), *conditions)
    ).one()
    return number, first


def _age(since: datetime | None, now: datetime) -> timedelta | None:
    return None if since is None else max(timedelta(0), now - since)
