"""Deleting work that is over."""

from datetime import datetime

from sqlalchemy.orm import Session

from app.db import delete_batch
from app.models import OutboxEntry, OutboxState
from app.outbox.publish import BATCH

OVER = (OutboxState.DONE, OutboxState.CANCELLED)


def purge(session: Session, *, before: datetime, limit: int = BATCH) -> int:
    """Delete up to ``limit`` entries that were done or cancelled before ``before``; how many.

    Their keys are free then. A message of theirs that still comes is skipped; but one that
    came without an entry (``celery call``) would run again, so ``before`` must lie further
    back than any message can wait.
    """
    return delete_batch(
        session,
        OutboxEntry.id,
        OutboxEntry.state.in_(OVER),
        OutboxEntry.finished_at < before,
        oldest=OutboxEntry.finished_at,
        limit=limit,
    )
