"""What beat remembers of each entry of its schedule."""

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
    last_due: Mapped[datetime] = mapped_column(UtcDateTime)
    """The last due instant that was enqueued, or when the schedule was first seen."""


BEAT_ENTRIES = cast(Table, BeatEntry.__table__)
