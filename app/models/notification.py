"""What the marketplace's web site shows a person under the bell."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from app.domain.notification_kinds import NotificationKind
from app.domain.notifications import BODY_LENGTH, TITLE_LENGTH
from app.models.base import Base
from app.models.types import UtcDateTime, text_enum
from app.models.user import Role


class Broadcast(Base):
    """One text for many people, and how far its fan-out has come."""

    __tablename__ = "broadcasts"
    # Notifications' keys hold its id: SQLite would give a deleted one out again.
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012 - as SQLAlchemy reads it

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(TITLE_LENGTH))
    body: Mapped[str] = mapped_column(String(BODY_LENGTH))
    audience: Mapped[Role | None] = mapped_column(text_enum(Role))
    """Null: everybody."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime, index=True)


class Notification(Base):
    __tablename__ = "notifications"
    __table_args__ = (
        Index("ix_notifications_user_id_read_at", "user_id", "read_at"),
        Index("ix_notifications_read_at", "read_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    kind: Mapped[NotificationKind] = mapped_column(text_enum(NotificationKind))
    key: Mapped[str] = mapped_column(String(255), unique=True)
    """Idempotency key: the same event tells the same person once."""
    title: Mapped[str] = mapped_column(String(TITLE_LENGTH))
    body: Mapped[str] = mapped_column(String(BODY_LENGTH))
    booking_id: Mapped[int | None] = mapped_column(ForeignKey("bookings.id"))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    read_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
