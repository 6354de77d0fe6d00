"""People: students and instructors."""

from enum import StrEnum
from typing import cast

from sqlalchemy import String, Table, true
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base
from app.models.types import text_enum


class Role(StrEnum):
    STUDENT = "student"
    INSTRUCTOR = "instructor"


class User(Base):
    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    role: Mapped[Role] = mapped_column(text_enum(Role))
    email: Mapped[str] = mapped_column(String(320), unique=True)
    name: Mapped[str] = mapped_column(String(200))
    time_zone: Mapped[str] = mapped_column(String(64))
    """IANA name: the zone in which this person reads times."""
    wants_booking_mails: Mapped[bool] = mapped_column(default=True, server_default=true())
    """Confirmations, cancellations and no-show notices."""
    wants_reminders: Mapped[bool] = mapped_column(default=True, server_default=true())
    wants_digests: Mapped[bool] = mapped_column(default=True, server_default=true())
    """Notification digests and weekly reports."""


USERS = cast(Table, User.__table__)
"""For statements that are run for each mail, which need nothing of the ORM."""
