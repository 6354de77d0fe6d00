"""What became of the jobs of a fault, counted from PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import uuid4

from sqlalchemy import text

from app import db

TICK = "tick"
"""The name of the schedule's jobs (``scripts.faults.jobs``)."""
HEADINGS = ("fault", "jobs", "lost", "doubled", "redelivered", "resent", "drained in s")

_EFFECTS = text(
    "SELECT count(DISTINCT job), count(*) FROM job_effects WHERE job LIKE :name || ' %'"
)
_ENTRIES = text(
    "SELECT count(*), count(*) FILTER (WHERE state = 'pending'), "
    "count(*) FILTER (WHERE state = 'dead'), coalesce(sum(deliveries), 0), coalesce(sum(resent), 0)"
    " FROM outbox_entries WHERE key LIKE :name || ' %'"
)


_MAILS_PUT_BACK = text(
    "SELECT coalesce(sum(tries), 0) FROM outbox_entries WHERE task = 'app.tasks.email.deliver'"
)


_PLANT = text(
    "INSERT INTO outbox_entries (id, task, args, kwargs, queue, priority, state, created_at, "
    "due_at, publishes, resent, deliveries, tries, errors) "
    "VALUES (:id, 'scripts.live.jobs.effect', CAST(:args AS json), '{}', 'celery', 0, "
    "'pending', now() - interval '1 hour', now() - interval '1 hour', 0, 0, 0, 0, '[]')"
)
_CANNOT_BE_PUBLISHED = text(
    "SELECT count(*) FROM outbox_entries WHERE id = ANY(:ids) AND tries > 0 "
    "AND CAST(errors AS text) LIKE '%cannot be published%'"
)
_CANCEL = text(
    "UPDATE outbox_entries SET state = 'cancelled', finished_at = now() "
    "WHERE id = ANY(:ids) AND state = 'pending'"
)


@dataclass(frozen=True)
class Counted:
    """How the jobs of one name stand."""

    planned: int
    pending: int
    dead: int
    done: int
    """Different jobs that had their effect."""
    effects: int
    redelivered: int
    """Messages that were started although they had been delivered before."""
    resent: int
    """Messages that were gone from the broker and were published again."""

    @property
    def doubled(self) -> int:
        return self.effects - self.done


def count(name: str) -> Counted:
    """Count the jobs that ``Load`` planned under ``name``. Raises the database's errors."""
    with db.reading() as session:
        done, effects = session.execute(_EFFECTS, {"name": name}).one()
        planned, pending, dead, redelivered, resent = session.execute(
            _ENTRIES, {"name": name}
        ).one()
    return Counted(planned, pending, dead, done, effects, redelivered, resent)


def mails_put_back() -> int:
    """How often a delivery of mails was put back, to be tried again, so far."""
    with db.reading() as session:
        return int(session.scalar(_MAILS_PUT_BACK))


def doubled_ticks() -> int:
    """Due instants of the schedule that fired once too often, so far."""
    with db.reading() as session:
        ticks, effects = session.execute(_EFFECTS, {"name": TICK}).one()
    return int(effects - ticks)


def plant(arguments: Sequence[str]) -> list[str]:
    """Insert a due entry with each of these arguments (JSON) past ``enqueue``; their ids."""
    ids = [f"planted-{uuid4()}" for _ in arguments]
    with db.engine().begin() as connection:
        for entry_id, args in zip(ids, arguments, strict=True):
            connection.execute(_PLANT, {"id": entry_id, "args": args})
    return ids


def cannot_be_published(ids: Sequence[str]) -> int:
    """How many of these entries were set aside for that reason."""
    with db.engine().connect() as connection:
        return connection.scalar(_CANNOT_BE_PUBLISHED, {"ids": list(ids)}) or 0


def cancel(ids: Sequence[str]) -> None:
    """Cancel what is still pending of these entries."""
    with db.engine().begin() as connection:
        connection.execute(_CANCEL, {"ids": list(ids)})


@dataclass(frozen=True)
class Row:
    """One fault, and what it did."""

    fault: str
    jobs: int
    lost: int
    doubled: int
    redelivered: int
    resent: int
    drained_seconds: float | None
    """From the end of the fault until nothing was pending; ``None``: not in time."""

    @property
    def exactly_once(self) -> bool:
        return self.lost == self.doubled == 0 and self.drained_seconds is not None


def table(rows: Iterable[Row]) -> list[str]:
    """Lines of a table for a terminal."""
    cells = [HEADINGS, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEADINGS))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]


def _cells(row: Row) -> tuple[str, ...]:
    drained = "not in time" if row.drained_seconds is None else f"{row.drained_seconds:.0f}"
    numbers = (row.jobs, row.lost, row.doubled, row.redelivered, row.resent)
    return (row.fault, *(f"{number:,}" for number in numbers), drained)
