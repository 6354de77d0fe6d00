"""Planning one mail a user, for many users, in pages."""

from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import ColumnElement, func, literal, select
from sqlalchemy.orm import Session

from app import outbox
from app.domain.days import number_of
from app.models import EmailKind, User
from app.services.email import enqueue_deliveries, plan

PAGE = 1000
"""Users in one transaction, which holds SQLite's only write lock for less than 100 ms."""
URGENCY = 3
"""Of the deliveries: read the next morning, so they never keep a confirmation waiting."""


@dataclass(frozen=True)
class PageSummary:
    planned: int
    """Mails."""
    deliveries: int
    goes_on: bool
    """Whether the next page is enqueued."""


def plan_page(
    session: Session,
    kind: EmailKind,
    day: date,
    wanting: ColumnElement[bool],
    *,
    task: str,
    after_user_id: int,
    now: datetime,
    page: int = PAGE,
) -> PageSummary:
    """Plan the mail about ``day`` to the next ``page`` users after ``after_user_id`` for whom
    ``wanting`` holds, its delivery, and the run of ``task`` that plans the page after them.

    All in the caller's transaction: after a kill the pages go on where they were.
    """
    chosen = (
        select(User.id)
        .where(User.id > after_user_id, wanting)
        .order_by(User.id)
        .limit(page)
        .subquery()
    )
    found, last = session.execute(select(func.count(), func.max(chosen.c.id))).one()
    if not found:
        return PageSummary(planned=0, deliveries=0, goes_on=False)
    readers = select(literal(number_of(day)), User.id).where(
        User.id > after_user_id, User.id <= last, wanting
    )
    email_ids = plan(session, kind, readers, now=now)
    goes_on = found == page
    if goes_on:
        # Without a key: whoever starts again from the first user gets through to the last
        # one. A mail that was planned before is not planned again anyway.
        outbox.enqueue(session, task, day.isoformat(), last)
    return PageSummary(
        planned=len(email_ids),
        deliveries=enqueue_deliveries(session, email_ids, urgency=URGENCY),
        goes_on=goes_on,
    )
