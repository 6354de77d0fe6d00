"""Dead letters: entries whose work failed for good. Seen, run again, thrown away.

Every change asks for the state in its own condition, so it does no harm beside workers,
pumps and other operators.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from app.db import delete_batch
from app.models import OutboxEntry, OutboxState
from app.outbox.publish import BATCH


class UnknownEntriesError(LookupError):
    """There is no entry with these ids."""

    def __init__(self, ids: Sequence[str]) -> None:
        self.ids = list(ids)
        named, more = self.ids[:3], len(self.ids) - 3
        super().__init__(
            f"no entry has the id {', '.join(named)}" + (f" (and {more} more)" if more > 0 else "")
        )


@dataclass(frozen=True)
class Retried:
    """What became of the entries that were to run again."""

    retried: list[str]
    left: dict[str, OutboxState] = field(default_factory=dict)
    """Those that were no dead letters, with what they are; nothing was changed in them."""


def find(
    session: Session,
    *,
    task: str | None = None,
    since: datetime | None = None,
    limit: int | None = None,
) -> list[OutboxEntry]:
    """Dead letters of ``task`` that died at ``since`` or later, the latest first."""
    return list(
        session.scalars(
            select(OutboxEntry)
            .where(*_dead(task=task, since=since))
            .order_by(OutboxEntry.finished_at.desc(), OutboxEntry.id.desc())
            .limit(limit)
        )
    )


def count(
    session: Session, *, task: str | None = None, since: datetime | None = None
) -> dict[str, int]:
    """How many dead letters each task has, of those that ``find`` finds."""
    rows = session.execute(
        select(OutboxEntry.task, func.count())
        .where(*_dead(task=task, since=since))
        .group_by(OutboxEntry.task)
    )
    return dict(rows.all())


def retry(session: Session, entry_ids: Sequence[str], *, now: datetime) -> Retried:
    """Make dead letters pending again, under the same ids.

    They are due now, with as many tries before them as new work, and keep their errors.
    The pump publishes them within seconds; who has a broker attached and no patience
    calls ``publish.after_commit`` after the commit. Raises ``UnknownEntriesError`` before
    anything is changed.
    """
    wanted = list(dict.fromkeys(entry_ids))
    batches = [wanted[start : start + BATCH] for start in range(0, len(wanted), BATCH)]
    known: set[str] = set()
    for batch in batches:
        known.update(session.scalars(select(OutboxEntry.id).where(OutboxEntry.id.in_(batch))))
    if len(known) < len(wanted):
        raise UnknownEntriesError([entry_id for entry_id in wanted if entry_id not in known])
    retried: set[str] = set()
    states: dict[str, OutboxState] = {}
    for batch in batches:
        retried.update(_make_pending(session, OutboxEntry.id.in_(batch), now=now))
        rows = session.execute(
            select(OutboxEntry.id, OutboxEntry.state).where(OutboxEntry.id.in_(batch))
        )
        states.update(rows.all())
    return Retried(
        [entry_id for entry_id in wanted if entry_id in retried],
        {
            entry_id: states[entry_id]
            for entry_id in wanted
            if entry_id in states and entry_id not in retried
        },
    )


def retry_all(
    session: Session, task: str, *, until: datetime, now: datetime, limit: int = BATCH
) -> list[str]:
    """Retry up to ``limit`` dead letters of ``task`` that died at ``until`` or before.

    Returns their ids; none when there are no more. ``until`` stays the same from batch to
    batch: what dies again meanwhile is not retried again.
    """
    chosen = (
        select(OutboxEntry.id)
        .where(*_dead(task=task), OutboxEntry.finished_at <= until)
        .order_by(OutboxEntry.finished_at, OutboxEntry.id)
        .limit(limit)
    )
    return _make_pending(session, OutboxEntry.id.in_(chosen.scalar_subquery()), now=now)


def purge(session: Session, *, before: datetime, limit: int = BATCH) -> int:
    """Delete up to ``limit`` dead letters that died before ``before``; how many there were.

    Their keys are free then, and a message of theirs that still comes is skipped.
    """
    return delete_batch(
        session,
        OutboxEntry.id,
        *_dead(),
        OutboxEntry.finished_at < before,
        oldest=OutboxEntry.finished_at,
        limit=limit,
    )


def _make_pending(session: Session, *chosen: ColumnElement[bool], now: datetime) -> list[str]:
    # A message carries the entry's tries, and the task compares them with max_retries:
    # left as they were, the first transient error would make a dead letter again.
    retried = session.scalars(
        update(OutboxEntry)
        .where(*chosen, *_dead())
        .values(
            state=OutboxState.PENDING,
            due_at=now,
            published_at=None,
            finished_at=None,
            publishes=0,
            deliveries=0,
            tries=0,
            retrying_since=None,
        )
        .returning(OutboxEntry.id)
        .execution_options(synchronize_session=False)
    )
    return list(retried)


def _dead(
    *, task: str | None = None, since: datetime | None = None
) -> tuple[ColumnElement[bool], ...]:
    conditions: list[Any] = [OutboxEntry.state == OutboxState.DEAD]
    if task is not None:
        conditions.append(OutboxEntry.task == task)
    if since is not None:
        conditions.append(OutboxEntry.finished_at >= since)
    return tuple(conditions)
