"""What each mail says: one family of mails a module, each with its letter and its reading."""

from datetime import datetime, tzinfo
from functools import cache
from typing import Any

from sqlalchemy import Select, bindparam, select
from sqlalchemy.orm import Session

from app.domain.email_kinds import LESSON_MAILS
from app.models import EMAIL_MESSAGES, USERS, EmailKind
from app.services.email_letters import digest, lesson, password_reset, weekly_report
from app.services.email_letters.digest import DigestLetter, Unread
from app.services.email_letters.lesson import LessonLetter
from app.services.email_letters.letter import Envelope, Letter
from app.services.email_letters.password_reset import PasswordResetLetter
from app.services.email_letters.weekly_report import WeeklyReportLetter
from app.services.email_preferences import is_wanted

__all__ = [
    "DigestLetter",
    "LessonLetter",
    "Letter",
    "PasswordResetLetter",
    "Unread",
    "WeeklyReportLetter",
    "read",
]


def read(
    session: Session, email_id: int, kind: EmailKind, *, now: datetime, zone: tzinfo
) -> Letter | None:
    """What a mail of ``kind`` says; ``None`` where it is pointless or unwanted by now.

    ``zone`` is the schedule's, which says where a digest's day begins. Raises
    ``MissingRowError`` where what the mail is about is gone.
    """
    row = session.execute(_envelope(kind), {"email_id": email_id}).one_or_none()
    if row is None:
        return None
    envelope = Envelope(kind=kind, **row._mapping)
    if kind in LESSON_MAILS:
        return lesson.read(session, envelope, now=now)
    if kind is EmailKind.PASSWORD_RESET:
        return password_reset.read(session, envelope, now=now)
    if kind is EmailKind.DIGEST:
        return digest.read(session, envelope, zone=zone)
    if kind is EmailKind.WEEKLY_REPORT:
        return weekly_report.read(session, envelope)
    raise ValueError(f"nobody has said what a mail of kind {kind} says")


@cache
def _envelope(kind: EmailKind) -> Select[*tuple[Any, ...]]:
    # Built once, and of tables: building it, or the ORM's part, takes longer than to run it.
    return (
        select(
            EMAIL_MESSAGES.c.subject_id,
            EMAIL_MESSAGES.c.recipient_id,
            USERS.c.name.label("reader_name"),
            USERS.c.email.label("reader_address"),
            USERS.c.time_zone.label("reader_zone"),
        )
        .join_from(EMAIL_MESSAGES, USERS, USERS.c.id == EMAIL_MESSAGES.c.recipient_id)
        .where(EMAIL_MESSAGES.c.id == bindparam("email_id"), is_wanted(kind))
    )
