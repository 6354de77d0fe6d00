"""The people of a load test through the services, and all that comes of what they do.

It belongs to one trace id, and to mail addresses in one domain under ``.invalid`` (RFC 2606,
section 2), by which it is found again and deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, func, or_, select
from sqlalchemy.orm import Session

from app import db
from app.adapters.slot_cache import CacheUnavailableError, slot_cache_from
from app.models import (
    AvailabilityException,
    AvailabilityWindow,
    Booking,
    DailyMetrics,
    EmailMessage,
    InstructorMetrics,
    Notification,
    OutboxEntry,
    PasswordReset,
    Role,
    Service,
    ServiceMetrics,
    StaleAvailability,
    User,
    UserSession,
)
from app.settings import Settings
from loadtests._errors import LoadTestError
from loadtests._work import FLOODED_DAY

DOMAIN = "loadtest.invalid"
STUDENTS, INSTRUCTORS = 200, 100
LESSON = timedelta(minutes=30)
BATCH = 500
"""Rows in one statement."""

Transaction = Callable[[], AbstractContextManager[Session]]


@dataclass(frozen=True)
class People:
    """Ids of those who moved in, and of what they teach."""

    students: Sequence[int]
    services: Sequence[int]


def address(trace_id: str, role: Role, number: int) -> str:
    """Where mail to one of them goes."""
    return f"{role.value}{number}@{_domain(trace_id)}"


def move_in(session: Session, trace_id: str) -> People:
    """Make the people of the load test with this trace id."""
    students = _persons(session, trace_id, Role.STUDENT, STUDENTS)
    teachers = _persons(session, trace_id, Role.INSTRUCTOR, INSTRUCTORS)
    taught = [
        Service(
            instructor_id=teacher.id,
            name="A lesson of a load test",
            minutes=LESSON // timedelta(minutes=1),
            price_cents=1,
        )
        for teacher in teachers
    ]
    session.add_all(taught)
    session.add_all(
        AvailabilityWindow(
            instructor_id=teacher.id, weekday=weekday, starts_minute=0, ends_minute=1440
        )
        for teacher in teachers
        for weekday in range(7)
    )
    session.flush()
    return People([each.id for each in students], [each.id for each in taught])


def move_out(
    trace_id: str, settings: Settings, *, transaction: Transaction = db.transaction
) -> None:
    """Delete the people of the load test with this trace id, and all that came of them.

    Raises ``LoadTestError`` where the cache keeps their free slots, when all else is deleted;
    the next full refresh takes those away.
    """
    of_the_test = User.email.like(f"%@{_domain(trace_id)}")
    people = select(User.id).where(of_the_test)
    with transaction() as session:
        instructors = session.scalars(people.where(User.role == Role.INSTRUCTOR)).all()
    taught = select(Service.id).where(Service.instructor_id.in_(people))
    booked = or_(Booking.student_id.in_(people), Booking.instructor_id.in_(people))
    for model, condition in (
        (OutboxEntry, OutboxEntry.trace_id == trace_id),
        (EmailMessage, EmailMessage.recipient_id.in_(people)),
        (Notification, Notification.user_id.in_(people)),
        (PasswordReset, PasswordReset.user_id.in_(people)),
        (UserSession, UserSession.user_id.in_(people)),
        (Booking, booked),
        (ServiceMetrics, ServiceMetrics.service_id.in_(taught)),
        (InstructorMetrics, InstructorMetrics.instructor_id.in_(people)),
        (StaleAvailability, StaleAvailability.instructor_id.in_(people)),
        (AvailabilityException, AvailabilityException.instructor_id.in_(people)),
        (AvailabilityWindow, AvailabilityWindow.instructor_id.in_(people)),
        (Service, Service.instructor_id.in_(people)),
        (User, of_the_test),
    ):
        _delete_all(transaction, model, condition)
    # No marketplace was open on it: whatever its row says was counted by a flood.
    with transaction() as session:
        session.execute(
            delete(DailyMetrics).where(DailyMetrics.date == date.fromisoformat(FLOODED_DAY))
        )
    try:
        with slot_cache_from(settings) as cache:
            cache.delete(instructors)
    except CacheUnavailableError as error:
        raise LoadTestError(f"free slots of made-up instructors stay cached: {error}") from error


def load_tests(*, active_since: datetime) -> tuple[dict[str, datetime], list[str]]:
    """Trace ids of the load tests whose people are there: of active ones, and of others.

    An active one has planned something after ``active_since``; when it last did so is told.
    """
    with db.reading() as session:
        addresses = session.scalars(select(User.email).where(User.email.like(f"%.{DOMAIN}")))
        found = {each.partition("@")[2].removesuffix(f".{DOMAIN}") for each in addresses}
        active = session.execute(
            select(OutboxEntry.trace_id, func.max(OutboxEntry.created_at))
            .where(OutboxEntry.trace_id.in_(found), OutboxEntry.created_at > active_since)
            .group_by(OutboxEntry.trace_id)
            .order_by(OutboxEntry.trace_id)
        )
        planned = {trace_id: last for trace_id, last in active if trace_id is not None}
    return planned, sorted(found - planned.keys())


def _domain(trace_id: str) -> str:
    return f"{trace_id}.{DOMAIN}"


def _persons(session: Session, trace_id: str, role: Role, number: int) -> list[User]:
    persons = [
        User(
            role=role,
            name=f"Load test {role.value} {each}",
            email=address(trace_id, role, each),
            time_zone="UTC",
            wants_digests=False,
        )
        for each in range(number)
    ]
    session.add_all(persons)
    session.flush()
    return persons


def _delete_all(transaction: Transaction, model: Any, condition: ColumnElement[bool]) -> None:
    (key, *others) = model.__table__.primary_key.columns
    ids: Select[Any] = select(key).where(condition).limit(BATCH)
    if others:  # a table with a row for each day and person: there are few
        with transaction() as session:
            session.execute(delete(model).where(condition))
        return
    while True:
        with transaction() as session:
            chosen = session.scalars(ids).all()
            session.execute(
                delete(model).where(key.in_(chosen)).execution_options(synchronize_session=False)
            )
        if len(chosen) < BATCH:
            return
