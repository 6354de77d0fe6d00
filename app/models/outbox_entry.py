"""The outbox: the truth about each piece of durable work."""

from datetime import datetime
from enum import StrEnum
from typing import Any, cast

from sqlalchemy import (
    JSON,
    CheckConstraint,
    ColumnElement,
    Index,
    SmallInteger,
    String,
    Table,
    literal_column,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from app import routing, trace
from app.models.base import Base
from app.models.types import UtcDateTime, text_enum


class OutboxState(StrEnum):
    PENDING = "pending"
    DONE = "done"
    DEAD = "dead"
    CANCELLED = "cancelled"


class OutboxEntry(Base):
    __tablename__ = "outbox_entries"
    __table_args__ = (
        CheckConstraint("priority BETWEEN 0 AND 9", name="priority_is_one_digit"),
        # A cancelled entry gives its key free: the same reminder may be planned again.
        Index(
            "uq_outbox_entries_key",
            "key",
            unique=True,
            sqlite_where=text("state <> 'cancelled'"),
            postgresql_where=text("state <> 'cancelled'"),
        ),
        # The relay's queries: what is due, in the order of publication; what is in which list.
        Index(
            "ix_outbox_entries_unpublished",
            "priority",
            "due_at",
            "id",
            sqlite_where=text("state = 'pending' AND published_at IS NULL"),
            postgresql_where=text("state = 'pending' AND published_at IS NULL"),
        ),
        Index(
            "ix_outbox_entries_published",
            "queue",
            "priority",
            "published_at",
            sqlite_where=text("state = 'pending' AND published_at IS NOT NULL"),
            postgresql_where=text("state = 'pending' AND published_at IS NOT NULL"),
        ),
        # The few whose last attempt failed; health reads them every minute.
        Index(
            "ix_outbox_entries_retrying",
            "task",
            "retrying_since",
            sqlite_where=text("state = 'pending' AND tries > 0"),
            postgresql_where=text("state = 'pending' AND tries > 0"),
        ),
        # Few among the many that are done; health counts them every minute. With the state in
        # it, because SQLite takes the index below if that one alone covers the question.
        Index(
            "ix_outbox_entries_dead",
            "state",
            "finished_at",
            sqlite_where=text("state = 'dead'"),
            postgresql_where=text("state = 'dead'"),
        ),
        # In this order: beginning with the state, SQLite prefers it to the two above.
        Index("ix_outbox_entries_finished_at_state", "finished_at", "state"),
    )

    id: Mapped[str] = mapped_column(String(255), primary_key=True)
    """Our UUIDv7, and the task id; for a task that came without a row, its task id."""
    task: Mapped[str] = mapped_column(String(255))
    args: Mapped[list[Any]] = mapped_column(JSON, default=list)
    kwargs: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    key: Mapped[str | None] = mapped_column(String(255))
    """Idempotency key: one entry for each, apart from cancelled ones."""
    queue: Mapped[str] = mapped_column(String(100))
    priority: Mapped[int] = mapped_column(SmallInteger)
    """On the wire: 0 goes first on Redis."""
    state: Mapped[OutboxState] = mapped_column(text_enum(OutboxState), default=OutboxState.PENDING)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    due_at: Mapped[datetime] = mapped_column(UtcDateTime)
    published_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """The broker's clock when the entry was last handed to it; null where it waits for the pump."""
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    publishes: Mapped[int] = mapped_column(default=0)
    """How often it was published in this try."""
    resent: Mapped[int] = mapped_column(default=0)
    """How often its message was gone from the broker and was published again."""
    deliveries: Mapped[int] = mapped_column(default=0)
    """How often a redelivered message of this try was started."""
    tries: Mapped[int] = mapped_column(default=0)
    """How often it was put back for a retry."""
    retrying_since: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When the first of these attempts failed; null where none did, or an older version of this
    code rescheduled the entry."""
    waits_for: Mapped[str | None] = mapped_column(String(255))
    """What postponed the message of this attempt last, such as ``rate limit 6/m``; null where
    nothing did. An attempt that was postponed has not failed yet."""
    due_instant: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """The instant that the run stands for: the beat entry's, else when it was first due.
    ``due_at`` moves with each retry, this does not."""
    trace_id: Mapped[str | None] = mapped_column(String(32), default=trace.current)
    """The trace of whoever planned it, 32 hexadecimal digits (W3C Trace Context, trace-id)."""
    errors: Mapped[list[dict[str, Any]]] = mapped_column(JSON, default=list)
    """One object for each failed try: ``at``, ``error``, and ``traceback`` for the last."""

    @classmethod
    def pending(cls) -> ColumnElement[bool]:
        """The condition that the partial indexes have; a bound parameter would not match it.

        Of the table, for an attribute of this class makes any statement one of the ORM, which
        takes as long again.
        """
        return OUTBOX_ENTRIES.c.state == literal_column("'pending'")

    @classmethod
    def unpublished(cls) -> ColumnElement[bool]:
        """The condition that an entry waits for the relay, in terms of its index.

        With every priority that there is: both databases then find the due entries of each in
        the index, and in its order, where without it they would read all those for later, too.
        """
        columns = OUTBOX_ENTRIES.c
        priorities: list[ColumnElement[int]] = [
            literal_column(str(each)) for each in range(routing.MOST_URGENT + 1)
        ]
        return cls.pending() & columns.published_at.is_(None) & columns.priority.in_(priorities)

    @classmethod
    def retrying(cls) -> ColumnElement[bool]:
        """The condition that an entry is pending, its last attempt failed, and nothing has
        postponed the next one since. The index holds those that meet the first two."""
        failed = OUTBOX_ENTRIES.c.tries > literal_column("0")
        return cls.pending() & failed & OUTBOX_ENTRIES.c.waits_for.is_(None)

    @classmethod
    def dead(cls) -> ColumnElement[bool]:
        """The condition of the dead letters' index."""
        return cls.state == literal_column("'dead'")


OUTBOX_ENTRIES = cast(Table, OutboxEntry.__table__)
"""For statements that are run for each task, which need nothing of the ORM."""
