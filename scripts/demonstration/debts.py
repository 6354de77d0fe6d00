"""What each reader must have got, by the marketplace's rules alone, planned or not."""

from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta, tzinfo

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.domain import reminders
from app.domain.calendar import day_of
from app.models import (
    Booking,
    BookingStatus,
    EmailKind,
    EmailMessage,
    InstructorMetrics,
    Notification,
    PasswordReset,
    User,
)
from app.services.password_resets import VALID_FOR

Debt = tuple[EmailKind, int, int]
"""A mail's kind, what it is about, and its reader."""

BOOKING_MAILS = frozenset(
    {EmailKind.BOOKING_CONFIRMATION, EmailKind.BOOKING_CANCELLATION, EmailKind.NO_SHOW}
)
REPORTS = frozenset({EmailKind.DIGEST, EmailKind.WEEKLY_REPORT})


def number_of(day: date) -> int:
    """A day as the subject of a mail: 20261101."""
    return int(day.strftime("%Y%m%d"))


def monday_of(day: date) -> date:
    """The Monday of the week that ``day`` is in."""
    return day - timedelta(days=day.weekday())


class Debts:
    """Reads the tables once, and answers from what it has read."""

    def __init__(self, session: Session, *, yesterday: date, zone: tzinfo) -> None:
        self._lessons = {lesson.id: lesson for lesson in session.scalars(select(Booking))}
        self._people = {user.id: user for user in session.scalars(select(User))}
        self._resets = {reset.id: reset for reset in session.scalars(select(PasswordReset))}
        self._reports = frozenset(
            {*_digests(session, yesterday, zone), *_weekly_reports(session, monday_of(yesterday))}
        )

    def of_lessons(self, *, reminded_at: datetime | None, now: datetime) -> set[Debt]:
        """Mails to both sides of each lesson.

        ``reminded_at`` is when the last run of the reminders was asked for that is done by
        ``now``: a reminder that fell due later is nobody's fault yet.
        """
        debts = {
            (kind, lesson.id, reader_id)
            for lesson in self._lessons.values()
            for kind in _owed(lesson, reminded_at=reminded_at, now=now)
            for reader_id in (lesson.student_id, lesson.instructor_id)
        }
        return self._wanted(debts)

    def of_resets(self) -> set[Debt]:
        """The link for everybody who asked for one, apart from those that a later one voids."""
        return {
            (EmailKind.PASSWORD_RESET, reset.id, reset.user_id)
            for reset in self._resets.values()
            if reset.used_at is None and reset.expires_at == reset.created_at + VALID_FOR
        }

    def of_reports(self) -> set[Debt]:
        """Yesterday's digests, and the reports of its week."""
        return self._wanted(self._reports)

    def allow(self, row: EmailMessage) -> bool:
        """Whether this planned mail should ever have gone to its reader."""
        if not self._wanted([(row.kind, row.subject_id, row.recipient_id)]):
            return False
        if row.kind is EmailKind.PASSWORD_RESET:
            reset = self._resets.get(row.subject_id)
            return reset is not None and reset.user_id == row.recipient_id
        if row.kind in REPORTS:
            return (row.kind, row.subject_id, row.recipient_id) in self._reports
        lesson = self._lessons.get(row.subject_id)
        return lesson is not None and _is_right(row, lesson)

    def _wanted(self, debts: Iterable[Debt]) -> set[Debt]:
        return {debt for debt in debts if _wants(self._people, debt)}


def _wants(people: Mapping[int, User], debt: Debt) -> bool:
    kind, _, reader_id = debt
    reader = people[reader_id]
    if kind in BOOKING_MAILS:
        return reader.wants_booking_mails
    if kind in reminders.LEADS:
        return reader.wants_reminders
    return kind not in REPORTS or reader.wants_digests


def _digests(session: Session, day: date, zone: tzinfo) -> set[Debt]:
    return {
        (EmailKind.DIGEST, number_of(day), notification.user_id)
        for notification in session.scalars(select(Notification))
        if notification.read_at is None and day_of(notification.created_at, zone) == day
    }


def _weekly_reports(session: Session, monday: date) -> set[Debt]:
    return {
        (EmailKind.WEEKLY_REPORT, number_of(monday), row.instructor_id)
        for row in session.scalars(select(InstructorMetrics))
        if monday_of(row.date) == monday
    }


def _owed(lesson: Booking, *, reminded_at: datetime | None, now: datetime) -> set[EmailKind]:
    """What both sides of a lesson must have got by ``now``."""
    if lesson.confirmed_at is None:
        return set()  # the other side never heard of it
    if lesson.status is BookingStatus.CANCELLED:
        return {EmailKind.BOOKING_CANCELLATION}
    owed = {EmailKind.BOOKING_CONFIRMATION}
    if lesson.status is BookingStatus.NO_SHOW:
        owed.add(EmailKind.NO_SHOW)
    if lesson.status is BookingStatus.CONFIRMED and reminded_at is not None:
        # Due when it was asked for and still due now, so also when it ran in between.
        due = {
            reminders.due_kind(lesson.starts_at, confirmed_at=lesson.confirmed_at, now=instant)
            for instant in (reminded_at, now)
        }
        if len(due) == 1:
            owed |= {kind for kind in due if kind is not None}
    return owed


def _is_right(row: EmailMessage, lesson: Booking) -> bool:
    if row.recipient_id not in (lesson.student_id, lesson.instructor_id):
        return False
    if lesson.confirmed_at is None:
        return False
    if row.kind is EmailKind.BOOKING_CONFIRMATION:
        return True
    if row.kind is EmailKind.BOOKING_CANCELLATION:
        return lesson.status is BookingStatus.CANCELLED
    if row.kind is EmailKind.NO_SHOW:
        return lesson.status is BookingStatus.NO_SHOW
    if lesson.cancelled_at is not None and lesson.cancelled_at < row.created_at:
        return False
    return row.kind is reminders.due_kind(
        lesson.starts_at, confirmed_at=lesson.confirmed_at, now=row.created_at
    )
