"""What each mail says: one family of mails a module, each with its letter and its reading."""

from datetime import datetime, tzinfo

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.domain.email_kinds import LESSON_MAILS
from app.models import EmailKind, EmailMessage, User
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
    row = session.execute(
        select(
            EmailMessage.subject_id,
            EmailMessage.recipient_id,
            User.name.label("reader_name"),
            User.email.label("reader_address"),
            User.time_zone.label("reader_zone"),
        )
        .join(User, User.id == EmailMessage.recipient_id)
        .where(EmailMessage.id == email_id, is_wanted(kind))
    ).one_or_none()
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
