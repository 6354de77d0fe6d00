"""A load test through the services: made-up people who book, cancel and forget passwords.

All of them, and all that comes of it, belong to one trace id and to mail addresses in one
domain under ``.invalid`` (RFC 2606, section 2), and are deleted at the end.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from random import Random
from threading import BoundedSemaphore
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, make_url, or_, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app import clock, db, outbox, schema, trace
from app.adapters.slot_cache import CacheUnavailableError, slot_cache_from
from app.domain.bookings import DoubleBookedError
from app.models import (
    AvailabilityException,
    AvailabilityWindow,
    Booking,
    DailyMetrics,
    EmailMessage,
    InstructorMetrics,
    Notification,
    OutboxEntry,
    OutboxState,
    PasswordReset,
    Role,
    Service,
    ServiceMetrics,
    StaleAvailability,
    User,
    UserSession,
)
from app.services import bookings, password_resets
from app.settings import Settings, load_settings
from loadtests._errors import LoadTestError
from loadtests._ledger import Ledger
from loadtests._work import (
    COMPLETE_FINISHED,
    EXPIRE_PENDING,
    FLOODED_DAY,
    HEALTH_CHECK,
    Call,
)

VARIABLE = "DATABASE_URL"
DOMAIN = "loadtest.invalid"
STUDENTS, INSTRUCTORS = 200, 100
FIRST_DAY, LAST_DAY = 3, 300
"""From today: too far ahead for a reminder, and near enough to be booked."""
SLOT = timedelta(minutes=30)
SLOTS_A_DAY = 48
TRIES = 5
"""Of a booking, where somebody has the hour."""
VERIFIED_SECONDS = 15.0
POLL_SECONDS = 0.1
MOST_URGENT = 9
BATCH = 500
"""Rows in one statement."""


def is_wanted() -> bool:
    """Whether a database is named: then it goes through the services."""
    return bool(os.environ.get(VARIABLE) or os.environ.get(f"{VARIABLE}_FILE"))


def shown() -> str:
    """The database's URL without its password."""
    return make_url(load_settings().database_url.get_secret_value()).render_as_string()


def verify() -> None:
    """Make sure that the workers of the attached broker work on this process's database.

    One health check is planned here, and must be done there. Raises ``LoadTestError``.
    """
    (check,) = HEALTH_CHECK
    try:
        # A file that is not there would be made.
        file = db.engine().url.database if db.engine().dialect.name == "sqlite" else None
        if file is not None and not Path(file).is_file():
            raise LoadTestError(f"{VARIABLE}: there is no file {file}")
        if schema.current_of(db.engine()) != schema.newest():
            raise LoadTestError(
                f"{VARIABLE}: {shown()} has not this version's schema: is it the deployment's?"
            )
        with db.transaction() as session:
            entry_id = outbox.enqueue(session, check.task, urgency=MOST_URGENT)
    except (schema.DatabaseNotReadyError, SQLAlchemyError) as error:
        raise LoadTestError(f"{VARIABLE}: {error}") from error
    done = False
    deadline = time.monotonic() + VERIFIED_SECONDS
    while not done and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        with db.reading() as session:
            state = session.scalar(select(OutboxEntry.state).where(OutboxEntry.id == entry_id))
            done = state is OutboxState.DONE
    with db.transaction() as session:
        session.execute(delete(OutboxEntry).where(OutboxEntry.id == entry_id))
    if not done:
        raise LoadTestError(
            f"{VARIABLE}: no worker of --host did within {VERIFIED_SECONDS:g} s what was planned "
            f"in {shown()}: is it another deployment's database? Unset it to load the broker alone"
        )


@dataclass(frozen=True)
class _People:
    students: Sequence[int]
    services: Sequence[int]
    instructors: Sequence[int]


class Marketplace:
    """What the people of one process of a load test do, through the services of ``app``."""

    def __init__(self, settings: Settings, ledger: Ledger, *, rng: Random) -> None:
        self._settings = settings
        self._ledger = ledger
        self._rng = rng
        self._domain = f"{ledger.trace_id}.{DOMAIN}"
        self._booked: deque[int] = deque()
        # SQLite has one writer, and waits for another one without letting other greenlets
        # of this process go on: one of which may be that writer.
        one_writer = db.engine().dialect.name == "sqlite"
        self._turn: AbstractContextManager[Any] = (
            BoundedSemaphore(1) if one_writer else nullcontext()
        )
        self._people = self._move_in()

    def book(self) -> None:
        """Book a lesson of a free hour, and confirm it. Raises ``BookingRefusedError``."""
        self._booked.append(self._book())

    def cancel(self) -> None:
        """Cancel the lesson that was booked first; book one before, where there is none."""
        booking_id = self._booked.popleft() if self._booked else self._book()
        with self._transaction() as session:
            bookings.cancel(session, booking_id, now=clock.utcnow())
            outbox.enqueue(session, EXPIRE_PENDING.task)

    def forget_password(self) -> None:
        """Ask for a password reset."""
        number = self._rng.randrange(len(self._people.students))
        with self._transaction() as session:
            password_resets.request(
                session, self._address(Role.STUDENT, number), now=clock.utcnow(), rng=self._rng
            )

    def plan(self, calls: Sequence[Call]) -> list[str]:
        """Plan runs of tasks; the entries' ids."""
        ids: list[str] = []
        try:
            with self._transaction() as session:
                for call in calls:
                    entry_id = outbox.enqueue(session, call.task, *call.args, urgency=call.urgency)
                    ids.append(entry_id)
                    self._ledger.expect([entry_id], call.queue, published_at=None)
        except BaseException:  # Ctrl-C comes in any greenlet
            self._ledger.forget(ids)
            raise
        return ids

    def withdraw(self) -> None:
        """Cancel what is planned and not done, so that nothing is published any more."""
        with self._transaction() as session:
            session.execute(
                update(OutboxEntry)
                .where(self._entries, OutboxEntry.pending())
                .values(state=OutboxState.CANCELLED, finished_at=clock.utcnow())
                .execution_options(synchronize_session=False)
            )

    def move_out(self) -> None:
        """Delete these people, and all that came of what they did.

        Raises ``LoadTestError`` where the cache keeps their free slots.
        """
        people = select(User.id).where(User.email.like(f"%@{self._domain}"))
        taught = select(Service.id).where(Service.instructor_id.in_(people))
        booked = or_(Booking.student_id.in_(people), Booking.instructor_id.in_(people))
        for model, condition in (
            (OutboxEntry, self._entries),
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
            (User, User.email.like(f"%@{self._domain}")),
        ):
            self._delete_all(model, condition)
        self._forget_flooded_day()
        try:
            with slot_cache_from(self._settings) as cache:
                cache.delete(self._people.instructors)
        except CacheUnavailableError as error:
            raise LoadTestError(
                f"free slots of made-up instructors stay cached: {error}"
            ) from error

    @property
    def _entries(self) -> ColumnElement[bool]:
        return OutboxEntry.trace_id == self._ledger.trace_id

    def _delete_all(self, model: Any, condition: ColumnElement[bool]) -> None:
        (key, *others) = model.__table__.primary_key.columns
        ids: Select[Any] = select(key).where(condition).limit(BATCH)
        if others:  # a table with a row for each day and person: there are few
            with self._transaction() as session:
                session.execute(delete(model).where(condition))
            return
        while True:
            with self._transaction() as session:
                chosen = session.scalars(ids).all()
                session.execute(
                    delete(model)
                    .where(key.in_(chosen))
                    .execution_options(synchronize_session=False)
                )
            if len(chosen) < BATCH:
                return

    def _forget_flooded_day(self) -> None:
        # No marketplace was open on it: whatever its row says was counted by a flood.
        with self._transaction() as session:
            session.execute(
                delete(DailyMetrics).where(DailyMetrics.date == date.fromisoformat(FLOODED_DAY))
            )

    @contextmanager
    def _transaction(self) -> Iterator[Session]:
        with self._turn, trace.use(self._ledger.trace_id), db.transaction() as session:
            yield session

    def _address(self, role: Role, number: int) -> str:
        return f"{role.value}{number}@{self._domain}"

    def _book(self) -> int:
        for left in reversed(range(TRIES)):
            try:
                with self._transaction() as session:
                    now = clock.utcnow()
                    booking = bookings.book(
                        session,
                        student_id=self._rng.choice(self._people.students),
                        service_id=self._rng.choice(self._people.services),
                        starts_at=self._some_start(now),
                        now=now,
                    )
                    bookings.confirm(session, booking.id, now=now)
                    outbox.enqueue(session, COMPLETE_FINISHED.task)
                return booking.id
            except DoubleBookedError:
                if not left:
                    raise
        raise AssertionError("the last try returns or raises")

    def _some_start(self, now: datetime) -> datetime:
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        day = midnight + timedelta(days=self._rng.randint(FIRST_DAY, LAST_DAY))
        return day + SLOT * self._rng.randrange(SLOTS_A_DAY)

    def _move_in(self) -> _People:
        with self._transaction() as session:
            students = self._persons(session, Role.STUDENT, STUDENTS)
            teachers = self._persons(session, Role.INSTRUCTOR, INSTRUCTORS)
            taught = [
                Service(
                    instructor_id=teacher.id,
                    name="A lesson of a load test",
                    minutes=SLOT // timedelta(minutes=1),
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
            return _People(
                [each.id for each in students],
                [each.id for each in taught],
                [each.id for each in teachers],
            )

    def _persons(self, session: Session, role: Role, number: int) -> list[User]:
        persons = [
            User(
                role=role,
                name=f"Load test {role.value} {each}",
                email=self._address(role, each),
                time_zone="UTC",
                wants_digests=False,
            )
            for each in range(number)
        ]
        session.add_all(persons)
        session.flush()
        return persons
