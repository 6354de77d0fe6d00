"""Queues from which no worker takes anything for now."""

from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base
from app.models.types import UtcDateTime


class PausedQueue(Base):
    __tablename__ = "paused_queues"

    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    paused_at: Mapped[datetime] = mapped_column(UtcDateTime)
