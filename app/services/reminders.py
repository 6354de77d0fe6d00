"""Planning the reminders that are due."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, func, type_coerce
from sqlalchemy.orm import Session
from sqlalchemy.types import DateTime, String

from app.domain import reminders
from app.models import Booking, BookingStatus, EmailKind
from app.services.email import CHUNK, both_sides, enqueue_deliveries, plan


@dataclass(frozen=True)
class ReminderSummary:
    planned: int
    """Mails: two for each lesson, less those that nobody wants."""
    deliveries: int


def enqueue_due(session: Session, *, now: datetime, chunk: int = CHUNK) -> ReminderSummary:
    """Plan the due reminders of both sides, and their delivery in chunks.

    Safe to call at any time and as often as one likes: a lesson's reminder is planned once.
    After an outage it plans what is still of use, as ``domain.reminders`` says.
    """
    planned: list[int] = []
    for kind in reminders.LEADS:
        due = due_lessons(kind, now=now, dialect=session.get_bind().dialect.name)
        planned += plan(session, kind, both_sides(due), now=now)
    return ReminderSummary(
        planned=len(planned),
        deliveries=enqueue_deliveries(session, planned, chunk=chunk),
    )


def due_lessons(kind: EmailKind, *, now: datetime, dialect: str) -> ColumnElement[bool]:
    """``domain.reminders.due_kind``, as a condition of a statement."""
    opens, closes = reminders.window(kind)
    return (
        (Booking.status == BookingStatus.CONFIRMED)
        & (Booking.starts_at <= now + opens)
        & (Booking.starts_at > now + closes)
        & (Booking.confirmed_at <= _before_start(opens, dialect=dialect))
    )


def _before_start(lead: timedelta, *, dialect: str) -> ColumnElement[Any]:
    """The instant ``lead`` (whole seconds) before the start."""
    starts_at = Booking.starts_at
    if dialect != "sqlite":
        return type_coerce(starts_at, DateTime(timezone=True)) - lead
    # SQLite keeps instants as text, and its date functions round to milliseconds: the part
    # before the fraction is shifted, the fraction stays.
    text = type_coerce(starts_at, String)
    seconds = func.strftime(
        "%Y-%m-%d %H:%M:%S", func.substr(text, 1, 19), f"-{lead.total_seconds():.0f} seconds"
    )
    return seconds.concat(func.substr(text, 20))
