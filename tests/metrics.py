"""A day's metrics as the tables have them, and counted another way: row by row, in Python."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Table, select
from sqlalchemy.orm import Session

from app.models import (
    Booking,
    DailyMetrics,
    EmailMessage,
    InstructorMetrics,
    OutboxEntry,
    ServiceMetrics,
)

Figures = dict[str, Any]
NOTHING = {
    "bookings_created": 0,
    "bookings_completed": 0,
    "bookings_cancelled": 0,
    "no_shows": 0,
    "revenue_cents": 0,
    "active_students": 0,
}


def stored(session: Session, day: date) -> tuple[Figures, dict[int, Figures], dict[int, Figures]]:
    """The rows of the day, of its services and of its instructors; without ``computed_at``."""
    return (
        next(iter(_rows(session, DailyMetrics, day)), {}),
        {row.pop("service_id"): row for row in _rows(session, ServiceMetrics, day)},
        {row.pop("instructor_id"): row for row in _rows(session, InstructorMetrics, day)},
    )


def _rows(session: Session, model: Any, day: date) -> list[Figures]:
    table: Table = model.__table__
    columns = [column for column in table.c if column.name not in {"date", "computed_at"}]
    return [
        dict(row) for row in session.execute(select(*columns).where(table.c.date == day)).mappings()
    ]


def recounted(
    session: Session, day: date, zone: ZoneInfo
) -> tuple[Figures, dict[int, Figures], dict[int, Figures]]:
    """What ``stored`` must be: by what the clocks showed, not by a span of instants.

    Not for a zone whose clocks are put back over a midnight.
    """

    def that_day(instant: datetime | None) -> bool:
        return instant is not None and instant.astimezone(zone).date() == day

    bookings = session.scalars(select(Booking)).all()
    mails = session.scalars(select(EmailMessage)).all()
    work = [row for row in session.scalars(select(OutboxEntry)) if that_day(row.finished_at)]
    daily = {
        **_count(bookings, that_day),
        "active_instructors": len({b.instructor_id for b in bookings if _began(b, that_day)}),
        "mails_sent": sum(that_day(mail.sent_at) for mail in mails),
        "mails_failed": sum(that_day(mail.failed_at) for mail in mails),
        "tasks_done": sum(row.state == "done" for row in work),
        "tasks_dead": sum(row.state == "dead" for row in work),
    }
    services, instructors = defaultdict(list), defaultdict(list)
    for booking in bookings:
        services[booking.service_id].append(booking)
        instructors[booking.instructor_id].append(booking)
    return daily, _count_each(services, that_day), _count_each(instructors, that_day)


def _count_each(
    groups: dict[int, list[Booking]], that_day: Callable[[datetime | None], bool]
) -> dict[int, Figures]:
    counted = {key: _count(bookings, that_day) for key, bookings in groups.items()}
    return {key: figures for key, figures in counted.items() if figures != NOTHING}


def _count(bookings: Iterable[Booking], that_day: Callable[[datetime | None], bool]) -> Figures:
    figures: Figures = dict(NOTHING)
    students = set()
    for booking in bookings:
        figures["bookings_created"] += that_day(booking.created_at)
        figures["bookings_cancelled"] += that_day(booking.cancelled_at)
        figures["no_shows"] += that_day(booking.no_show_at)
        if that_day(booking.completed_at):
            figures["bookings_completed"] += 1
            figures["revenue_cents"] += booking.price_cents
        if _began(booking, that_day):
            students.add(booking.student_id)
    figures["active_students"] = len(students)
    return figures


def _began(booking: Booking, that_day: Callable[[datetime | None], bool]) -> bool:
    return booking.status not in {"pending", "cancelled"} and that_day(booking.starts_at)
