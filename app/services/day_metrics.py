"""Counting one local day: set-based, and the same row however often it is counted."""

from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import (
    ColumnElement,
    Subquery,
    case,
    delete,
    distinct,
    func,
    literal,
    select,
    true,
    union_all,
)
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.db import insert_for
from app.domain.calendar import day_span
from app.models import (
    Booking,
    BookingStatus,
    DailyMetrics,
    EmailMessage,
    InstructorMetrics,
    OutboxEntry,
    OutboxState,
    ServiceMetrics,
)

TOOK_PLACE = (BookingStatus.CONFIRMED, BookingStatus.COMPLETED, BookingStatus.NO_SHOW)
"""What a lesson may be that has begun: a confirmed one can no longer be cancelled then."""

_BEGAN = "began"
_EVENTS: dict[str, InstrumentedAttribute[Any]] = {
    "bookings_created": Booking.created_at,
    "bookings_completed": Booking.completed_at,
    "bookings_cancelled": Booking.cancelled_at,
    "no_shows": Booking.no_show_at,
}


def compute_day(session: Session, day: date, *, zone: ZoneInfo, now: datetime) -> dict[str, int]:
    """Count ``day`` of ``zone`` into the metrics' tables; how many services and instructors.

    Again gives the same rows but for ``computed_at``. Rows of services and instructors to
    whom, looked at again, nothing happened are deleted.
    """
    start, end = day_span(day, zone)
    happened = _happened(start, end)
    _count_day(session, day, happened, start=start, end=end, now=now)
    return {
        "services": _count_each(session, day, happened, ServiceMetrics.service_id, now=now),
        "instructors": _count_each(
            session, day, happened, InstructorMetrics.instructor_id, now=now
        ),
    }


def _happened(start: datetime, end: datetime) -> Subquery:
    """A row for each thing that happened to a booking in the span.

    A part for each instant, so that each finds its rows by its own index.
    """
    parts = [_part(name, instant, start=start, end=end) for name, instant in _EVENTS.items()]
    began = _part(_BEGAN, Booking.starts_at, start=start, end=end).where(
        Booking.status.in_(TOOK_PLACE)
    )
    return union_all(*parts, began).subquery("happened")


def _part(
    event: str, instant: InstrumentedAttribute[Any], *, start: datetime, end: datetime
) -> Any:
    return select(
        literal(event).label("event"),
        Booking.service_id,
        Booking.instructor_id,
        Booking.student_id,
        Booking.price_cents,
    ).where(instant >= start, instant < end)


def _figures(happened: Subquery) -> dict[str, ColumnElement[Any]]:
    """The columns of ``BookingFigures``, for the rows of a group or for all."""
    event, price = happened.c.event, happened.c.price_cents
    revenue = func.sum(case((event == "bookings_completed", price), else_=0))
    return {
        **{name: func.count(case((event == name, 1))) for name in _EVENTS},
        "revenue_cents": func.coalesce(revenue, 0),
        "active_students": _active(happened, happened.c.student_id),
    }


def _active(happened: Subquery, person: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.count(distinct(case((happened.c.event == _BEGAN, person))))


def _count_day(
    session: Session,
    day: date,
    happened: Subquery,
    *,
    start: datetime,
    end: datetime,
    now: datetime,
) -> None:
    def count(table: Any, instant: Any, *conditions: ColumnElement[bool]) -> Any:
        return (
            select(func.count())
            .select_from(table)
            .where(instant >= start, instant < end, *conditions)
            .scalar_subquery()
        )

    # The rows behind these are deleted after a while: never lowered.
    kept = {
        "mails_sent": count(EmailMessage, EmailMessage.sent_at),
        "mails_failed": count(EmailMessage, EmailMessage.failed_at),
        "tasks_done": count(
            OutboxEntry, OutboxEntry.finished_at, OutboxEntry.state == OutboxState.DONE
        ),
        "tasks_dead": count(
            OutboxEntry, OutboxEntry.finished_at, OutboxEntry.state == OutboxState.DEAD
        ),
    }
    values = {
        "date": literal(day, DailyMetrics.date.type),
        **_figures(happened),
        "active_instructors": _active(happened, happened.c.instructor_id),
        **kept,
        "computed_at": literal(now, DailyMetrics.computed_at.type),
    }
    # Without a WHERE, SQLite would read ON CONFLICT as a join's condition.
    counted = select(*values.values()).select_from(happened).where(true())
    insert = insert_for(session)(DailyMetrics).from_select(list(values), counted)
    changes = {name: insert.excluded[name] for name in values if name != "date"}
    for name in kept:
        before = getattr(DailyMetrics, name)
        changes[name] = case((before > changes[name], before), else_=changes[name])
    session.execute(insert.on_conflict_do_update(index_elements=[DailyMetrics.date], set_=changes))


def _count_each(
    session: Session,
    day: date,
    happened: Subquery,
    key: InstrumentedAttribute[int],
    *,
    now: datetime,
) -> int:
    """Count the day for each service or instructor that ``key`` names; how many there are."""
    table = key.class_
    whose = happened.c[key.key]
    session.execute(
        delete(table)
        .where(table.date == day, key.not_in(select(whose)))
        .execution_options(synchronize_session=False)
    )
    values = {
        "date": literal(day, table.date.type),
        key.key: whose,
        **_figures(happened),
        "computed_at": literal(now, table.computed_at.type),
    }
    # In order, so that two runs of the same day wait for each other and do not deadlock.
    counted = select(*values.values()).group_by(whose).order_by(whose)
    insert = insert_for(session)(table).from_select(list(values), counted)
    changes = {name: insert.excluded[name] for name in values if name not in {"date", key.key}}
    written = session.scalars(
        insert.on_conflict_do_update(index_elements=[table.date, key], set_=changes).returning(key)
    )
    return len(written.all())
