"""One mail of each kind, planned by its own use case."""

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.domain.reminders import LEADS
from app.models import BookingStatus, EmailKind, EmailMessage, User
from app.services import digests, email, password_resets, reminders, weekly_reports
from tests.builders import (
    a_lesson,
    a_notification,
    a_password_reset,
    a_service,
    a_student,
    an_instructor,
    an_instructors_day,
)

ZONE = ZoneInfo("US/Eastern")
MONDAY = date(2026, 2, 23)
CHOICES = {
    EmailKind.BOOKING_CONFIRMATION: "wants_booking_mails",
    EmailKind.BOOKING_CANCELLATION: "wants_booking_mails",
    EmailKind.NO_SHOW: "wants_booking_mails",
    EmailKind.REMINDER_24H: "wants_reminders",
    EmailKind.REMINDER_1H: "wants_reminders",
    EmailKind.DIGEST: "wants_digests",
    EmailKind.WEEKLY_REPORT: "wants_digests",
}
"""The choice that each kind obeys, written down a second time. A password reset obeys none."""


def a_reader(session: Session, kind: EmailKind, *, wants_it: bool = True, **about: str) -> User:
    """Somebody who gets mails of this kind, and has left every other choice as it was."""
    reader = (
        an_instructor(session, **about)
        if kind is EmailKind.WEEKLY_REPORT
        else a_student(session, **about)
    )
    choose(reader, kind, wants_it)
    session.flush()
    return reader


def choose(reader: User, kind: EmailKind, wants_it: bool) -> None:
    """Opt in to mails of this kind, or out of them."""
    if kind in CHOICES:
        setattr(reader, CHOICES[kind], wants_it)


def plan(session: Session, kind: EmailKind, reader: User, *, now: datetime) -> list[EmailMessage]:
    """Let happen what makes the marketplace write such a mail; the reader's mails of it."""
    if kind in LEADS:
        _a_lesson(session, reader, starts_at=now + LEADS[kind])
        reminders.enqueue_due(session, now=now)
    elif kind is EmailKind.BOOKING_CONFIRMATION:
        lesson = _a_lesson(session, reader, starts_at=now + timedelta(days=2))
        email.queue_confirmation(session, lesson, now=now)
    elif kind is EmailKind.BOOKING_CANCELLATION:
        lesson = _a_lesson(
            session, reader, starts_at=now + timedelta(days=2), status=BookingStatus.CANCELLED
        )
        email.queue_cancellation(session, lesson, now=now)
    elif kind is EmailKind.NO_SHOW:
        lesson = _a_lesson(
            session, reader, starts_at=now - timedelta(hours=2), status=BookingStatus.NO_SHOW
        )
        email.queue_no_show_notice(session, lesson, now=now)
    elif kind is EmailKind.PASSWORD_RESET:
        reset = a_password_reset(session, user=reader, created_at=now)
        password_resets.queue_mail(session, reset.id, now=now)
    elif kind is EmailKind.DIGEST:
        a_notification(session, user=reader, created_at=now)
        digests.enqueue(session, now.astimezone(ZONE).date(), zone=ZONE, now=now)
    else:
        an_instructors_day(session, instructor=reader, date=MONDAY)
        weekly_reports.enqueue(session, MONDAY, now=now)
    return list(
        session.scalars(
            select(EmailMessage).where(
                EmailMessage.kind == kind, EmailMessage.recipient_id == reader.id
            )
        )
    )


def _a_lesson(
    session: Session,
    student: User,
    *,
    starts_at: datetime,
    status: BookingStatus = BookingStatus.CONFIRMED,
) -> int:
    service = a_service(session, instructor=an_instructor(session))
    return a_lesson(
        session, starts_at=starts_at, status=status, student=student, service=service
    ).id
