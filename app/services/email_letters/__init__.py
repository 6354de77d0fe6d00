"""What each mail says: one family of mails a module, each with its letter and its reading."""

from datetime import datetime, tzinfo
from functools import cache

from sqlalchemy import Connection

from app.domain.email_kinds import LESSON_MAILS
from app.models import EmailKind
from app.services.email_letters import digest, lesson, password_reset, weekly_report
from app.services.email_letters.digest import DigestLetter, Unread
from app.services.email_letters.lesson import LessonLetter
from app.services.email_letters.letter import Envelope, Letter, envelope_of
from app.services.email_letters.password_reset import PasswordResetLetter
from app.services.email_letters.weekly_report import WeeklyReportLetter

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
    connection: Connection, email_id: int, kind: EmailKind, *, now: datetime, zone: tzinfo
) -> Letter | None:
    """What a mail of ``kind`` says; ``None`` where it is pointless or unwanted by now.

    ``zone`` is the schedule's, which says where a digest's day begins. Raises
    ``MissingRowError`` where what the mail is about is gone.
    """
    if kind in LESSON_MAILS:
        return lesson.read(connection, email_id, kind, now=now)
    row = connection.execute(_envelope(kind), {"email_id": email_id}).one_or_none()
    if row is None:
        return None
    envelope = Envelope(kind=kind, **row._mapping)
    if kind is EmailKind.PASSWORD_RESET:
        return password_reset.read(connection, envelope, now=now)
    if kind is EmailKind.DIGEST:
        return digest.read(connection, envelope, zone=zone)
    if kind is EmailKind.WEEKLY_REPORT:
        return weekly_report.read(connection, envelope)
    raise ValueError(f"nobody has said what a mail of kind {kind} says")


_envelope = cache(envelope_of)
