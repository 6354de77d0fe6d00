"""What each mail says: one family of mails a module, each with its letter and its reading."""

from datetime import datetime, tzinfo
from functools import cache
from typing import Any, cast

from sqlalchemy import Select, Table, bindparam, select
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


_mails, _users = cast(Table, EmailMessage.__table__).c, cast(Table, User.__table__).c


@cache
def _envelope(kind: EmailKind) -> Select[*tuple[Any, ...]]:
    # Built once, and of tables: building it, or the ORM's part, takes longer than to run it.
    return (
        select(
            _mails.subject_id,
            _mails.recipient_id,
            _users.name.label("reader_name"),
            _users.email.label("reader_address"),
            _users.time_zone.label("reader_zone"),
        )
        .join_from(EmailMessage.__table__, User.__table__, _users.id == _mails.recipient_id)
        .where(_mails.id == bindparam("email_id"), is_wanted(kind))
    )
