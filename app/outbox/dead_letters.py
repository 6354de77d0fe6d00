"""Find, retry and delete dead letters.

Every change has the state in its own condition, so it does no harm beside workers, pumps and
other operators.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from app.db import delete_batch, update_batch
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
    session: Session,
    *,
    task: str | None = None,
    since: datetime | None = None,
    before: datetime | None = None,
) -> dict[str, int]:
    """How many dead letters each task has, of those that ``find`` finds or ``purge`` deletes."""
    rows = session.execute(
        select(OutboxEntry.task, func.count())
        .where(*_dead(task=task, since=since, before=before))
        .group_by(OutboxEntry.task)
    )
    return dict(rows.all())


def states(session: Session, entry_ids: Sequence[str]) -> dict[str, OutboxState]:
    """The state of each of the entries that there are."""
    found: dict[str, OutboxState] = {}
    for start in range(0, len(entry_ids), BATCH):
        batch = entry_ids[start : start + BATCH]
        found |= dict(
            session.execute(
                select(OutboxEntry.id, OutboxEntry.state).where(OutboxEntry.id.in_(batch))
            ).all()
        )
    return found


def retry(session: Session, entry_ids: Sequence[str], *, now: datetime) -> Retried:
    """Make dead letters pending again, under the same ids.

    They are due now, with as many tries before them as new work, and keep their errors.
    The pump publishes them within seconds; who has a broker attached and no patience
    calls ``publish.after_commit`` after the commit. Raises ``UnknownEntriesError`` before
    anything is changed.
    """
    wanted = list(dict.fromkeys(entry_ids))
    known = states(session, wanted)
    if len(known) < len(wanted):
        raise UnknownEntriesError([entry_id for entry_id in wanted if entry_id not in known])
    retried: set[str] = set()
    for start in range(0, len(wanted), BATCH):
        batch = wanted[start : start + BATCH]
        retried.update(
            session.scalars(
                update(OutboxEntry)
                .where(OutboxEntry.id.in_(batch), *_dead())
                .values(_pending_again(now))
                .returning(OutboxEntry.id)
                .execution_options(synchronize_session=False)
            )
        )
    left = states(session, [entry_id for entry_id in wanted if entry_id not in retried])
    return Retried(
        [entry_id for entry_id in wanted if entry_id in retried],
        {entry_id: left[entry_id] for entry_id in wanted if entry_id in left},
    )


def retry_all(
    session: Session, task: str, *, until: datetime, now: datetime, limit: int = BATCH
) -> list[str]:
    """Retry up to ``limit`` dead letters of ``task`` that died at ``until`` or before.

    Returns their ids; none when there are no more. ``until`` stays the same from batch to
    batch: what dies again meanwhile is not retried again. Waits for no other transaction: an
    entry that one has locked stays dead.
    """
    return update_batch(
        session,
        OutboxEntry.id,
        *_dead(task=task),
        OutboxEntry.finished_at <= until,
        oldest=OutboxEntry.finished_at,
        limit=limit,
        values=_pending_again(now),
    )


def purge(
    session: Session,
    *,
    before: datetime | None = None,
    entry_ids: Sequence[str] | None = None,
    limit: int = BATCH,
) -> int:
    """Delete up to ``limit`` dead letters; return how many there were.

    Only those that died before ``before``, and only those of ``entry_ids``, where given. Their
    keys are free then, and a message of theirs that still comes is skipped.
    """
    chosen = [*_dead(before=before)]
    if entry_ids is not None:
        chosen.append(OutboxEntry.id.in_(entry_ids))
    return delete_batch(
        session, OutboxEntry.id, *chosen, oldest=OutboxEntry.finished_at, limit=limit
    )


def _pending_again(now: datetime) -> dict[str, Any]:
    # A message carries the entry's tries, and the task compares them with max_retries:
    # left as they were, the first transient error would make a dead letter again.
    return {
        "state": OutboxState.PENDING,
        "due_at": now,
        "published_at": None,
        "finished_at": None,
        "publishes": 0,
        "deliveries": 0,
        "tries": 0,
        "retrying_since": None,
        "waits_for": None,
    }


def _dead(
    *, task: str | None = None, since: datetime | None = None, before: datetime | None = None
) -> tuple[ColumnElement[bool], ...]:
    conditions: list[Any] = [OutboxEntry.state == OutboxState.DEAD]
    if task is not None:
        conditions.append(OutboxEntry.task == task)
    if since is not None:
        conditions.append(OutboxEntry.finished_at >= since)
    if before is not None:
        conditions.append(OutboxEntry.finished_at < before)
    return tuple(conditions)
