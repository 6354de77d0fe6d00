"""Cancel pending entries, and make the next attempt of failed ones due now.

Every change has the state in its own condition, so it does no harm beside workers, pumps and
other operators.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, update
from sqlalchemy.orm import Session

from app.db import update_batch
from app.models import OutboxEntry, OutboxState
from app.outbox.publish import BATCH


def cancel_batch(
    session: Session,
    *conditions: ColumnElement[bool],
    until: datetime,
    now: datetime,
    limit: int = BATCH,
) -> list[str]:
    """Cancel up to ``limit`` pending entries that meet ``conditions``; returns their ids.

    Entries that were enqueued after ``until`` (UTC) stay, so repeated calls come to an end.
    Waits for no other transaction: an entry that a running task has marked stays, too.
    """
    return update_batch(
        session,
        OutboxEntry.id,
        *conditions,
        OutboxEntry.pending(),
        OutboxEntry.created_at <= until,
        oldest=OutboxEntry.id,
        limit=limit,
        values={"state": OutboxState.CANCELLED, "finished_at": now},
    )


def attempt_now(session: Session, entry_ids: Sequence[str], *, now: datetime) -> list[str]:
    """Make entries that wait for their next attempt due at ``now``; returns their ids.

    They keep their failed attempts. Entries that have neither failed nor been postponed, are
    due already, are published or have ended are left as they are.
    """
    made = session.scalars(
        update(OutboxEntry)
        .where(OutboxEntry.id.in_(entry_ids), *_waits_for_attempt(now))
        .values(due_at=now)
        .returning(OutboxEntry.id)
        .execution_options(synchronize_session=False)
    )
    return list(made)


def attempt_all_now(session: Session, task: str, *, now: datetime, limit: int = BATCH) -> list[str]:
    """Do as ``attempt_now`` for up to ``limit`` entries of ``task``; none when there are no more.

    ``now`` stays the same from batch to batch. Waits for no other transaction.
    """
    return update_batch(
        session,
        OutboxEntry.id,
        OutboxEntry.task == task,
        *_waits_for_attempt(now),
        # The most urgent first, as the relay: its index has them in this order.
        oldest=OutboxEntry.priority,
        limit=limit,
        values={"due_at": now},
    )


def _waits_for_attempt(now: datetime) -> tuple[ColumnElement[bool], ...]:
    failed_or_postponed = (OutboxEntry.tries > 0) | OutboxEntry.waits_for.is_not(None)
    return (OutboxEntry.unpublished(), OutboxEntry.due_at > now, failed_or_postponed)
