"""What an instructor's week came to."""

from datetime import date, datetime

from sqlalchemy import ColumnElement, exists, func, select
from sqlalchemy.orm import Session

from app.domain.calendar import DAY
from app.domain.days import DAYS_OF_A_WEEK
from app.domain.errors import TransientError
from app.models import DailyMetrics, EmailKind, InstructorMetrics, User
from app.services.email_pages import PAGE, PageSummary, plan_page

SEND_WEEKLY_REPORTS = "app.tasks.email.send_weekly_reports"


class WeekNotCountedError(TransientError):
    """A report of the week would leave out days; the message says which."""


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


def check_counted(session: Session, monday: date, *, today: date) -> None:
    """Raise ``WeekNotCountedError`` where a day of the week from ``monday`` has no metrics yet.

    ``today`` and later days have none, nor need those before the first that was ever counted:
    a marketplace may begin on a Thursday.
    """
    counted = set(session.scalars(select(DailyMetrics.date).where(_in_week(DailyMetrics, monday))))
    first = session.scalar(select(func.min(DailyMetrics.date)))
    days = (monday + number * DAY for number in range(DAYS_OF_A_WEEK))
    missing = [
        day for day in days if first is not None and first <= day < today and day not in counted
    ]
    if missing:
        raise WeekNotCountedError(f"not counted yet: {', '.join(map(str, missing))}")


def in_week(monday: date) -> ColumnElement[bool]:
    """The condition that a day's metrics belong to the week from ``monday``."""
    return _in_week(InstructorMetrics, monday)


def _in_week(
    table: type[DailyMetrics] | type[InstructorMetrics], monday: date
) -> ColumnElement[bool]:
    return table.date.between(monday, monday + (DAYS_OF_A_WEEK - 1) * DAY)
