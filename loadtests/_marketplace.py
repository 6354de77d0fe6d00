"""A load test through the services: made-up people book, cancel and forget passwords."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime, timedelta
from random import Random
from threading import BoundedSemaphore
from typing import Any

from sqlalchemy import update
from sqlalchemy.orm import Session

from app import clock, db, outbox, trace
from app.domain.bookings import DoubleBookedError
from app.models import OutboxEntry, OutboxState, Role
from app.services import bookings, password_resets
from app.settings import Settings
from loadtests import _made_up_people
from loadtests._ledger import Ledger
from loadtests._work import COMPLETE_FINISHED, EXPIRE_PENDING, Call

FIRST_DAY, LAST_DAY = 3, 300
"""From today: too far ahead for a reminder, and near enough to be booked."""
SLOT = _made_up_people.LESSON
SLOTS_A_DAY = timedelta(days=1) // SLOT
TRIES = 5
"""Of a booking, where somebody has the hour."""


class Marketplace:
    """What the people of one process of a load test do, through the services of ``app``."""

    def __init__(self, settings: Settings, ledger: Ledger, *, rng: Random) -> None:
        self._settings = settings
        self._ledger = ledger
        self._rng = rng
        self._booked: deque[int] = deque()
        # SQLite has one writer, and waits for another one without letting other greenlets
        # of this process go on: one of which may be that writer.
        one_writer = db.engine().dialect.name == "sqlite"
        self._turn: AbstractContextManager[Any] = (
            BoundedSemaphore(1) if one_writer else nullcontext()
        )
        with self._transaction() as session:
            self._people = _made_up_people.move_in(session, ledger.trace_id)

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
        address = _made_up_people.address(self._ledger.trace_id, Role.STUDENT, number)
        with self._transaction() as session:
            password_resets.request(session, address, now=clock.utcnow(), rng=self._rng)

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
                .where(OutboxEntry.trace_id == self._ledger.trace_id, OutboxEntry.pending())
                .values(state=OutboxState.CANCELLED, finished_at=clock.utcnow())
                .execution_options(synchronize_session=False)
            )

    def move_out(self) -> None:
        """Delete these people, and all that came of what they did.

        Raises ``LoadTestError`` where the cache keeps their free slots.
        """
        _made_up_people.move_out(
            self._ledger.trace_id, self._settings, transaction=self._transaction
        )

    @contextmanager
    def _transaction(self) -> Iterator[Session]:
        with self._turn, trace.use(self._ledger.trace_id), db.transaction() as session:
            yield session

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
