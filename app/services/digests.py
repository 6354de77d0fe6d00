"""The daily digest of what a user has not read."""

from datetime import date, datetime, tzinfo

from sqlalchemy import ColumnElement, and_, exists
from sqlalchemy.orm import Session

from app.domain.calendar import day_span
from app.models import EmailKind, Notification, User
from app.services.email_pages import PAGE, PageSummary, plan_page

SEND_DIGESTS = "app.tasks.email.send_digests"


def enqueue(
    session: Session,
    day: date,
    *,
    zone: tzinfo,
    now: datetime,
    after_user_id: int = 0,
    page: int = PAGE,
) -> PageSummary:
    """Plan one mail to each user with unread notifications of ``day``, in pages.

    The day is the schedule's, in ``zone``, and not the reader's own: it is over when this
    runs, so each notification belongs to one digest wherever its reader lives. The mail
    itself shows the reader's time.
    """
    return plan_page(
        session,
        EmailKind.DIGEST,
        day,
        exists().where(Notification.user_id == User.id, unread_of(day, zone)),
        task=SEND_DIGESTS,
        after_user_id=after_user_id,
        now=now,
        page=page,
    )


def unread_of(day: date, zone: tzinfo) -> ColumnElement[bool]:
    """The condition that a notification was made on ``day`` and is not read yet."""
    begins, ends = day_span(day, zone)
    return and_(
        Notification.read_at.is_(None),
        Notification.created_at >= begins,
        Notification.created_at < ends,
    )
