"""A mail to one reader, and how far it has come."""

from datetime import datetime
from enum import StrEnum
from typing import cast

from sqlalchemy import ForeignKey, String, Table, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app import trace
from app.domain.email_kinds import EmailKind
from app.models.base import Base
from app.models.types import UtcDateTime, text_enum
from app.models.user import User


class EmailState(StrEnum):
    QUEUED = "queued"
    SENDING = "sending"
    SENT = "sent"
    FAILED = "failed"
    CANCELLED = "cancelled"


class EmailMessage(Base):
    """One row for each kind, subject and reader: the key that keeps a mail single.

    ``subject_id`` tells what the mail is about: the id of a booking or of a password reset;
    for a digest or a weekly report the local date, as the number 20261101.
    """

    __tablename__ = "email_messages"
    __table_args__ = (
        UniqueConstraint("kind", "subject_id", "recipient_id"),
        # Its ids travel in messages: SQLite would give a deleted one to another mail.
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[EmailKind] = mapped_column(text_enum(EmailKind))
    subject_id: Mapped[int]
    recipient_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    state: Mapped[EmailState] = mapped_column(text_enum(EmailState), default=EmailState.QUEUED)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    leased_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Until then the mail belongs to the worker that claimed it."""
    claims: Mapped[int] = mapped_column(default=0)
    """How often it was claimed; the number tells one holder of the lease from the next."""
    uncertain: Mapped[int] = mapped_column(default=0)
    """How often a claim was taken over: then nobody knows whether the mail went out."""
    uncertain_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When a claim was last taken over; null where none was, or an older version of this code
    took it over."""
    sent_at: Mapped[datetime | None] = mapped_column(UtcDateTime, index=True)
    failed_at: Mapped[datetime | None] = mapped_column(UtcDateTime, index=True)
    """When it was last given up; stays where it is sent after all."""
    error: Mapped[str | None] = mapped_column(String(500))
    trace_id: Mapped[str | None] = mapped_column(String(32), default=trace.current)
    """What the work that planned this mail belongs to: see ``OutboxEntry.trace_id``."""

    recipient: Mapped[User] = relationship()


EMAIL_MESSAGES = cast(Table, EmailMessage.__table__)
"""For statements that are run for each mail, which need nothing of the ORM."""
