"""Planning mails; ``email_delivery`` gets them to the mail server."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Select, exists, literal, select
from sqlalchemy.orm import Session

from app import outbox
from app.db import insert_for
from app.domain.emails import is_pointless
from app.models import Booking, EmailKind, EmailMessage, EmailState, User
from app.services.email_preferences import is_wanted
from app.services.errors import MissingRowError

DELIVER = "app.tasks.email.deliver"

CHUNK = 100
"""Mails in one delivery: one connection to the mail server, one message of the broker."""


def queue_confirmation(session: Session, booking_id: int, *, now: datetime) -> list[int]:
    """Plan the confirmation to both sides, and its delivery; the new mails' ids.

    A mail that was planned before is not planned again, nor one that is pointless by now
    or that its reader does not want. Raises ``MissingRowError``.
    """
    return _queue(session, EmailKind.BOOKING_CONFIRMATION, booking_id, now=now)


def queue_cancellation(session: Session, booking_id: int, *, now: datetime) -> list[int]:
    """As ``queue_confirmation``, for the notice that a lesson is cancelled."""
    return _queue(session, EmailKind.BOOKING_CANCELLATION, booking_id, now=now)


def queue_no_show_notice(session: Session, booking_id: int, *, now: datetime) -> list[int]:
    """As ``queue_confirmation``, for the notice that somebody did not come to a lesson."""
    return _queue(session, EmailKind.NO_SHOW, booking_id, now=now)


def both_sides(lessons: ColumnElement[bool]) -> Select[int, int]:
    """The readers of a mail about ``lessons``, a condition on bookings; for ``plan``."""
    return (
        select(Booking.id, User.id)
        .join(User, User.id.in_([Booking.student_id, Booking.instructor_id]))
        .where(lessons)
    )


def plan(
    session: Session, kind: EmailKind, readers: Select[int, int], *, now: datetime
) -> list[int]:
    """Insert a mail for each of ``readers``, in one statement; the new mails' ids.

    ``readers`` selects the id of what the mail is about and that of its reader, from the
    users and whatever else. Who does not want such mails gets none, and nobody gets a
    second one about the same.
    """
    subject_id, reader_id = readers.selected_columns
    # The conflict clause alone would do, but on PostgreSQL every refused row uses up an id.
    planned_before = exists().where(
        EmailMessage.kind == kind,
        EmailMessage.subject_id == subject_id,
        EmailMessage.recipient_id == reader_id,
    )
    mails = readers.add_columns(
        literal(kind, EmailMessage.kind.type),
        literal(EmailState.QUEUED, EmailMessage.state.type),
        literal(now, EmailMessage.created_at.type),
    ).where(is_wanted(kind), ~planned_before)
    columns = [
        EmailMessage.subject_id,
        EmailMessage.recipient_id,
        EmailMessage.kind,
        EmailMessage.state,
        EmailMessage.created_at,
    ]
    inserted = session.scalars(
        insert_for(session)(EmailMessage)
        .from_select(columns, mails)
        .on_conflict_do_nothing()
        .returning(EmailMessage.id)
    )
    return sorted(inserted)


def enqueue_deliveries(
    session: Session,
    email_ids: Sequence[int],
    *,
    chunk: int = CHUNK,
    urgency: int | None = None,
    include_failed: bool = False,
) -> int:
    """Enqueue the delivery of planned mails, up to ``chunk`` in each; how many deliveries.

    ``urgency`` and ``include_failed`` are those of ``outbox.enqueue`` and of the delivery.
    """
    starts = range(0, len(email_ids), chunk)
    options = [True] if include_failed else []
    for start in starts:
        ids = list(email_ids[start : start + chunk])
        outbox.enqueue(session, DELIVER, ids, *options, urgency=urgency)
    return len(starts)


def _queue(session: Session, kind: EmailKind, booking_id: int, *, now: datetime) -> list[int]:
    booking = session.get(Booking, booking_id)
    if booking is None:
        raise MissingRowError(f"booking {booking_id}")
    if is_pointless(kind, status=booking.status, starts_at=booking.starts_at, now=now):
        return []
    email_ids = plan(session, kind, both_sides(Booking.id == booking_id), now=now)
    enqueue_deliveries(session, email_ids)
    return email_ids
