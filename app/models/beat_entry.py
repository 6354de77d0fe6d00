"""What beats remember of each entry of the schedule, and which definitions they have of it."""

from datetime import datetime
from typing import cast

from sqlalchemy import String, Table
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base
from app.models.types import UtcDateTime


class BeatEntry(Base):
    __tablename__ = "beat_entries"

    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    schedule_hash: Mapped[str] = mapped_column(String(64))
    """Of the schedule in force, its time zone and its task."""
    definition: Mapped[str | None] = mapped_column(String(64))
    """Hash of the whole definition in force; null where the version before this column wrote."""
    last_due: Mapped[datetime] = mapped_column(UtcDateTime)
    """The last due instant that was enqueued or left out, or since when the definition is in
    force."""
    next_due: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """The first due instant that has no run yet, by the definition in force."""
    last_run_due: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """The due instant of the last run."""
    last_run_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When that run was enqueued."""
    last_run_id: Mapped[str | None] = mapped_column(String(255))
    """The outbox entry of that run, which may have been purged since."""


class BeatDefinition(Base):
    """A definition that a beat has, or had, of an entry of the schedule."""

    __tablename__ = "beat_definitions"

    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    definition: Mapped[str] = mapped_column(String(64), primary_key=True)
    schedule_hash: Mapped[str] = mapped_column(String(64))
    description: Mapped[str] = mapped_column(String(1000))
    """Schedule, time zone and options, for a person."""
    kept_through: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Up to here a beat has enqueued all that was due, by that beat's clock."""
    seen_at: Mapped[datetime] = mapped_column(UtcDateTime)
    """The last sign of life of a beat with this definition, by the broker's clock."""
    host: Mapped[str] = mapped_column(String(255))
    """The machine of that beat."""


BEAT_ENTRIES = cast(Table, BeatEntry.__table__)
BEAT_DEFINITIONS = cast(Table, BeatDefinition.__table__)
