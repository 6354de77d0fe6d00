"""The outbox at one look."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, case, func, select
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


@dataclass(frozen=True)
class OfTask:
    """The entries of one task that are not over, or are dead."""

    pending: int
    retrying: int
    """Pending ones whose last attempt failed, and whose next one nothing has postponed."""
    dead: int
    oldest: timedelta | None
    """For how long the oldest pending one has been due."""


def by_task(session: Session, *, now: datetime) -> dict[str, OfTask]:
    """Count the entries of each task that has pending or dead ones. Reads the whole table."""

    def number(condition: ColumnElement[bool]) -> ColumnElement[int]:
        return func.sum(case((condition, 1), else_=0))

    due = OutboxEntry.pending() & (OutboxEntry.due_at <= now)
    rows = session.execute(
        select(
            OutboxEntry.task,
            number(OutboxEntry.pending()),
            number(OutboxEntry.retrying()),
            number(OutboxEntry.dead()),
            func.min(case((due, OutboxEntry.due_at))),
        )
        .where(OutboxEntry.pending() | OutboxEntry.dead())
        .group_by(OutboxEntry.task)
        .order_by(OutboxEntry.task)
    )
    return {
        task: OfTask(pending, retrying, dead, _age(since, now))
        for task, pending, retrying, dead, since in rows
    }


PENDING = ("pending", "unpublished", "published", "later", "retrying")
"""``pending`` is all of the others, which overlap: a retry may be published."""
ENDED = (OutboxState.DONE.value, OutboxState.DEAD.value, OutboxState.CANCELLED.value)
STATES = (*PENDING, *ENDED)
"""What an entry can be asked for by."""


def stage(entry: OutboxEntry, *, now: datetime) -> str:
    """The most telling of ``STATES`` that the entry is in."""
    if entry.state is not OutboxState.PENDING:
        return entry.state.value
    if entry.tries and entry.waits_for is None:
        return "retrying"
    if entry.published_at is not None:
        return "published"
    return "later" if entry.due_at > now else "unpublished"


@dataclass(frozen=True)
class Wanted:
    """Which entries are asked for; ``None`` is any."""

    state: str = "pending"
    """One of ``STATES``."""
    task: str | None = None
    queue: str | None = None

    def conditions(self, now: datetime) -> list[ColumnElement[bool]]:
        unpublished = OutboxEntry.pending() & OutboxEntry.published_at.is_(None)
        chosen = {
            "pending": OutboxEntry.pending(),
            "unpublished": unpublished & (OutboxEntry.due_at <= now),
            "published": OutboxEntry.pending() & OutboxEntry.published_at.is_not(None),
            "later": unpublished & (OutboxEntry.due_at > now),
            "retrying": OutboxEntry.retrying(),
        }.get(self.state, OutboxEntry.state == self.state)
        conditions = [chosen]
        if self.task is not None:
            conditions.append(OutboxEntry.task == self.task)
        if self.queue is not None:
            conditions.append(OutboxEntry.queue == self.queue)
        return conditions


def find(
    session: Session, wanted: Wanted, *, now: datetime, limit: int | None = None
) -> list[OutboxEntry]:
    """The wanted entries: pending ones the longest due first, ended ones the latest first.

    Reads the whole table, as ``read`` does.
    """
    ended = wanted.state in ENDED
    order = OutboxEntry.finished_at.desc() if ended else OutboxEntry.due_at
    return list(
        session.scalars(
            select(OutboxEntry)
            .where(*wanted.conditions(now))
            .order_by(order, OutboxEntry.id)
            .limit(limit)
        )
    )


def count(session: Session, wanted: Wanted, *, now: datetime) -> int:
    """How many entries ``find`` finds without a limit."""
    chosen = select(func.count()).select_from(OutboxEntry).where(*wanted.conditions(now))
    return session.scalars(chosen).one()


def _waiting(session: Session, *conditions: ColumnElement[bool]) -> tuple[int, datetime | None]:
    """How many pending entries meet the conditions, and when the first of them was due."""
    number, first = session.execute(
        select(func.count(), func.min(OutboxEntry.due_at)).where(OutboxEntry.pending(), *conditions)
    ).one()
    return number, first


def _age(since: datetime | None, now: datetime) -> timedelta | None:
    return None if since is None else max(timedelta(0), now - since)
