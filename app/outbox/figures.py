"""The outbox in numbers that are asked for every few seconds."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import (
    CTE,
    Connection,
    ScalarSelect,
    String,
    bindparam,
    func,
    literal,
    select,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.functions import FunctionElement

from app import routing
from app.domain.errors import one_line
from app.models import OUTBOX_ENTRIES, OutboxEntry, OutboxState

COMMIT_DELAY = timedelta(minutes=1)
"""An entry that says it died at an instant may be seen so much later: until its commit."""

MOST_TASKS = 20
"""Tasks whose retrying entries are counted each by itself: those with the most."""
OTHER_TASKS = "(other tasks)"
SAMPLE = 100
"""The oldest retrying entries of a task, whose errors are read."""


class _LastError(FunctionElement[str]):
    """The text of an entry's last error, without the earlier ones and the traceback."""

    inherit_cache = True
    type = String()


@compiles(_LastError)
def _on_sqlite(*_args: Any, **_options: Any) -> str:
    return "json_extract(outbox_entries.errors, '$[#-1].error')"


@compiles(_LastError, "postgresql")
def _on_postgresql(*_args: Any, **_options: Any) -> str:
    return "outbox_entries.errors -> -1 ->> 'error'"


_entries = OUTBOX_ENTRIES.c
_RETRYING_TASKS = (
    select(_entries.task, func.count(), func.min(_entries.retrying_since))
    .where(OutboxEntry.retrying())
    .group_by(_entries.task)
)
_OLDEST_RETRYING = (
    select(_entries.retrying_since, _LastError())
    .where(OutboxEntry.retrying(), _entries.task == bindparam("of_task"))
    .order_by(_entries.retrying_since)
    .limit(SAMPLE)
)


def priorities() -> CTE:
    """Return a table of all priorities: for a query that has an index for each of them."""
    each = select(literal(0).label("priority")).cte("priorities", recursive=True)
    return each.union_all(select(each.c.priority + 1).where(each.c.priority < routing.MOST_URGENT))


def first_due() -> ScalarSelect[datetime]:
    """Return the query for the instant at which the first unpublished entry is or was due.

    One step into the index for each priority, however many entries there are.
    """
    each = priorities()
    of_priority = select(func.min(_entries.due_at)).where(
        OutboxEntry.pending(),
        _entries.published_at.is_(None),
        _entries.priority == each.c.priority,
    )
    return select(func.min(of_priority.scalar_subquery())).select_from(each).scalar_subquery()


@dataclass(frozen=True)
class Retrying:
    """Pending entries of one task whose last attempt failed, and whose next one nothing has
    postponed."""

    number: int
    oldest_seconds: float | None
    """Since the first failed attempt of the oldest entry; ``None`` where it is not known."""
    error: str = ""
    """The most frequent last error among the ``SAMPLE`` oldest entries: its first line."""
    outage_seconds: float | None = None
    """``oldest_seconds`` without the entries that only a lone error keeps from their end."""
    lone: int = 0
    """Entries among the ``SAMPLE`` oldest whose last error is a lone one."""


def retrying(
    session: Session | Connection, *, now: datetime, lone_errors: Collection[str]
) -> dict[str, Retrying]:
    """The retrying entries by task, the task with the most first; ``OTHER_TASKS`` for the rest.

    ``lone_errors`` are names of error classes that concern one item and no other, such as a
    mail server's refusal of one mail. Reads the index of the retrying entries, and at most
    ``SAMPLE`` entries of each of ``MOST_TASKS`` tasks.
    """
    tasks = sorted(session.execute(_RETRYING_TASKS).all(), key=lambda row: (-row[1], row[0]))
    found = {}
    for task, number, since in tasks[:MOST_TASKS]:
        errors = Counter[str]()
        outages, lone = [], 0
        for failing_since, text in session.execute(_OLDEST_RETRYING, {"of_task": task}):
            error = one_line(text or "")
            errors[error] += 1
            if error.partition(":")[0] in lone_errors:
                lone += 1
            elif failing_since is not None:
                outages.append(failing_since)
        found[task] = Retrying(
            number,
            _seconds(since, now),
            error=next((error for error, _ in errors.most_common(1)), ""),
            outage_seconds=_seconds(min(outages, default=None), now),
            lone=lone,
        )
    if rest := tasks[MOST_TASKS:]:
        since = min((since for _, _, since in rest if since is not None), default=None)
        seconds = _seconds(since, now)
        number = sum(number for _, number, _ in rest)
        found[OTHER_TASKS] = Retrying(number, seconds, outage_seconds=seconds)
    return found


def _seconds(since: datetime | None, now: datetime) -> float | None:
    return None if since is None else max(0.0, (now - since).total_seconds())


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
