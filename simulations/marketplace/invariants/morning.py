"""The mails of the morning: who is owed a digest of a day, or a report of a week."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.domain.calendar import day_of
from app.domain.days import number_of
from app.models import Booking, DailyMetrics, EmailKind, Notification, User
from simulations.marketplace.invariants.metrics import recount

DAY = timedelta(days=1)
SENT_AT = time(8)
"""On the day after, on the marketplace's wall clock."""
ON_THEIR_WAY = timedelta(hours=1)
"""What goes out in the morning has arrived by then."""

Mail = tuple[EmailKind, int, int]
"""A mail's kind, subject and reader."""


@dataclass
class MorningMails:
    """Those that must have arrived, and those that may have."""

    owed: set[Mail] = field(default_factory=set)
    allowed: set[Mail] = field(default_factory=set)


def morning_mails(session: Session, *, zone: ZoneInfo, now: datetime) -> MorningMails:
    """Digests and weekly reports as the tables and their recount ask for them."""
    mails = MorningMails()
    readers = set(session.scalars(select(User.id).where(User.wants_digests)))
    counted = set(session.scalars(select(DailyMetrics.date)))
    for notification in session.scalars(
        select(Notification).where(Notification.user_id.in_(readers))
    ):
        day = day_of(notification.created_at, zone)
        if day in counted and _sent_at(day, zone) <= now:
            mail = (EmailKind.DIGEST, number_of(day), notification.user_id)
            # Who reads it in time needs no mail, and nobody remembers when it was looked up.
            unread = notification.read_at is None
            surely = unread and _sent_at(day, zone) + ON_THEIR_WAY <= now
            (mails.owed if surely else mails.allowed).add(mail)
    lessons = session.scalars(select(Booking)).all()
    for day, (of, instructor_id) in recount(lessons, zone):
        sunday = day + (6 - day.weekday()) * DAY
        if of != "instructor" or instructor_id not in readers:
            continue
        if day in counted and sunday in counted and _sent_at(sunday, zone) <= now:
            mail = (EmailKind.WEEKLY_REPORT, number_of(sunday - 6 * DAY), instructor_id)
            surely = _sent_at(sunday, zone) + ON_THEIR_WAY <= now
            (mails.owed if surely else mails.allowed).add(mail)
    return mails


def _sent_at(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day + DAY, SENT_AT, zone)
