"""The mail that tells an instructor what the week came to."""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from sqlalchemy import Connection, func, select

from app.domain.days import DAYS_OF_A_WEEK, numbered
from app.models import InstructorMetrics
from app.services.email_letters.letter import Envelope, Letter
from app.services.email_letters.wording import calendar_day, dollars
from app.services.errors import MissingRowError
from app.services.weekly_reports import in_week
from app.settings import Settings


@dataclass(frozen=True, kw_only=True)
class WeeklyReportLetter(Letter):
    monday: date
    completed: int
    cancelled: int
    no_shows: int
    revenue_cents: int

    @property
    def template(self) -> str:
        return "weekly_report"

    @property
    def subject(self) -> str:
        return f"Your week from {calendar_day(self.monday)}"

    def facts(self, settings: Settings) -> dict[str, Any]:
        sunday = self.monday + timedelta(days=DAYS_OF_A_WEEK - 1)
        return {
            "first_day": calendar_day(self.monday),
            "last_day": calendar_day(sunday),
            "completed": self.completed,
            "cancelled": self.cancelled,
            "no_shows": self.no_shows,
            "revenue": dollars(self.revenue_cents),
        }


def read(connection: Connection, envelope: Envelope) -> WeeklyReportLetter:
    """The report, by the metrics as they are now. Raises ``MissingRowError``."""
    monday = numbered(envelope.subject_id)
    row = connection.execute(
        select(
            func.count().label("days"),
            func.sum(InstructorMetrics.bookings_completed).label("completed"),
            func.sum(InstructorMetrics.bookings_cancelled).label("cancelled"),
            func.sum(InstructorMetrics.no_shows).label("no_shows"),
            func.sum(InstructorMetrics.revenue_cents).label("revenue_cents"),
        ).where(InstructorMetrics.instructor_id == envelope.recipient_id, in_week(monday))
    ).one()
    if not row.days:
        raise MissingRowError("its metrics are gone")
    return WeeklyReportLetter(
        **vars(envelope),
        monday=monday,
        completed=row.completed,
        cancelled=row.cancelled,
        no_shows=row.no_shows,
        # PostgreSQL adds big integers up to a Decimal.
        revenue_cents=int(row.revenue_cents),
    )
