"""The outbox in numbers that are asked for every few seconds."""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import cast

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.models import OutboxEntry, OutboxState

COMMIT_DELAY = timedelta(minutes=1)
"""An entry that says it died at an instant may be seen so much later: until its commit."""


def count_states(session: Session) -> dict[OutboxState, int]:
    """How many entries there are in each state. Reads an index over the whole table."""
    rows = session.execute(select(OutboxEntry.state, func.count()).group_by(OutboxEntry.state))
    return dict.fromkeys(OutboxState, 0) | dict(rows.all())


class Deaths:
    """Counts each dead letter that is made from ``since`` on, by whichever process.

    What is counted stays counted, although dead letters are retried and purged; one that
    dies again counts again. ``look`` must be called now and then.
    """

    def __init__(self, *, since: datetime) -> None:
        self._begin = since
        self._since = since
        self._seen: set[tuple[str, datetime]] = set()
        self._counts: Counter[str] = Counter()

    def look(self, session: Session, *, now: datetime) -> Mapping[str, int]:
        """How many dead letters each task has had so far."""
        found = {
            (entry_id, cast(datetime, finished_at)): task
            for entry_id, task, finished_at in session.execute(
                select(OutboxEntry.id, OutboxEntry.task, OutboxEntry.finished_at).where(
                    OutboxEntry.finished_at >= self._since, OutboxEntry.state == OutboxState.DEAD
                )
            )
        }
        self._counts.update(task for death, task in found.items() if death not in self._seen)
        self._since = max(self._begin, now - COMMIT_DELAY)
        self._seen = {death for death in found if death[1] >= self._since}
        return dict(self._counts)
