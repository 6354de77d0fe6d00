"""Pause and resume queues, and count the work of one."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from app import routing
from app.db import insert_for
from app.domain.errors import no_such
from app.models import OutboxEntry, PausedQueue


class UnknownQueueError(ValueError):
    """No queue has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(no_such("queue", name, routing.QUEUE_NAMES))


def pause(session: Session, names: Sequence[str], *, now: datetime) -> list[str]:
    """Pause the queues; returns those that were not paused before.

    What is running goes on, and so does planning and publishing: the work waits. Raises
    ``UnknownQueueError`` before anything is changed.
    """
    wanted = check(names)
    if not wanted:
        return []
    inserted = session.scalars(
        insert_for(session)(PausedQueue)
        .values([{"name": name, "paused_at": now} for name in wanted])
        .on_conflict_do_nothing(index_elements=[PausedQueue.name])
        .returning(PausedQueue.name)
    )
    return sorted(inserted)


def resume(session: Session, names: Sequence[str]) -> list[str]:
    """Resume the queues; returns those that were paused. Raises ``UnknownQueueError``."""
    resumed = session.scalars(
        delete(PausedQueue)
        .where(PausedQueue.name.in_(check(names)))
        .returning(PausedQueue.name)
        .execution_options(synchronize_session=False)
    )
    return sorted(resumed)


def paused(session: Session) -> dict[str, datetime]:
    """Since when each paused queue has been so, by name."""
    rows = session.execute(
        select(PausedQueue.name, PausedQueue.paused_at).order_by(PausedQueue.name)
    )
    return dict(rows.all())


def pending(session: Session, name: str) -> int:
    """How many pending entries the queue has, due or not. Raises ``UnknownQueueError``."""
    check([name])
    counted = select(func.count()).where(OutboxEntry.queue == name, OutboxEntry.pending())
    return session.scalar(counted) or 0


def check(names: Sequence[str]) -> list[str]:
    """The names, each once. Raises ``UnknownQueueError``."""
    for name in names:
        if not routing.is_queue(name):
            raise UnknownQueueError(name)
    return list(dict.fromkeys(names))
