"""What an instructor's week came to."""

from datetime import date, datetime, timedelta

from sqlalchemy import ColumnElement, exists
from sqlalchemy.orm import Session

from app.domain.days import DAYS_OF_A_WEEK
from app.models import EmailKind, InstructorMetrics, User
from app.services.email_pages import PAGE, PageSummary, plan_page

SEND_WEEKLY_REPORTS = "app.tasks.email.send_weekly_reports"


def enqueue(
    session: Session, monday: date, *, now: datetime, after_user_id: int = 0, page: int = PAGE
) -> PageSummary:
    """Plan one mail to each instructor with metrics in the week from ``monday``, in pages."""
    return plan_page(
        session,
        EmailKind.WEEKLY_REPORT,
        monday,
        exists().where(InstructorMetrics.instructor_id == User.id, in_week(monday)),
        task=SEND_WEEKLY_REPORTS,
        after_user_id=after_user_id,
        now=now,
        page=page,
    )


def in_week(monday: date) -> ColumnElement[bool]:
    """The condition that a day's metrics belong to the week from ``monday``."""
    return InstructorMetrics.date.between(monday, monday + timedelta(days=DAYS_OF_A_WEEK - 1))
