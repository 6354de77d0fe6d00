"""People who book, confirm and cancel lessons, through the services that a web site would call."""

import heapq
from collections.abc import Callable
from datetime import datetime, timedelta, tzinfo
from itertools import count
from random import Random

from app import clock, db
from app.domain.bookings import BookingRefusedError
from app.domain.reminders import LEADS
from app.models import User
from app.services import bookings, broadcasts, password_resets
from scripts.demonstration.past import Past, relive
from scripts.demonstration.people import People

Say = Callable[[str, str], None]
"""Tells the audience: what (one word), and the rest of the line."""

MINUTE = timedelta(minutes=1)
BETWEEN_BOOKINGS = 0.8  # seconds, on average
CONFIRMED_AFTER = (0.3, 2.0)  # seconds
CANCELLED_AFTER = (1.5, 6.0)  # seconds
NEVER_CONFIRMED = 0.08  # of the booked lessons
CANCELLED = 0.2  # of the confirmed ones

ALREADY_DUE = range(3, 24, 5)  # minutes by which a reminder is overdue when the show begins


class Population:
    """Decides by ``rng`` alone, and acts when it is stepped to the time for it."""

    def __init__(self, people: People, *, rng: Random, say: Say) -> None:
        self._people = people
        self._rng = rng
        self._say = say
        self._acts: list[tuple[float, int, Callable[[float], None]]] = []
        self._numbers = count()
        self._plan(0.0, self._book)

    def relive(self, *, zone: tzinfo) -> Past:
        """Let yesterday happen, then forget passwords and announce something to everybody."""
        now = clock.utcnow()
        past = relive(self._people, zone=zone, now=now)
        with db.transaction() as session:
            for user_id in (*self._people.students[:3], self._people.students[0]):
                address = session.get_one(User, user_id).email
                password_resets.request(session, address, now=now, rng=self._rng)
            broadcasts.create_broadcast(
                session, title="New", body="Lessons may now be 90 minutes long.", now=now
            )
        return past

    def bring_history(self) -> int:
        """Lessons that were agreed on before the show, twice a reminder's lead ago; how many.

        Their reminders are overdue now, or fall due at the next whole minute. A lesson that
        somebody books now never gets one that soon: its confirmation says it all.
        """
        now = clock.utcnow()
        this_minute = now.replace(second=0, microsecond=0)
        agreed = [
            (now - 2 * lead, this_minute + lead + minutes)
            for lead in LEADS.values()
            for minutes in (MINUTE, *(-MINUTE * overdue for overdue in ALREADY_DUE))
        ]
        pairs = zip(self._people.students, self._people.services, agreed, strict=False)
        for student_id, service_id, (then, starts_at) in pairs:
            with db.transaction() as session:
                lesson = bookings.book(
                    session,
                    student_id=student_id,
                    service_id=service_id,
                    starts_at=starts_at,
                    now=then,
                )
                bookings.confirm(session, lesson.id, now=then)
        return len(agreed)

    def step(self, elapsed: float) -> None:
        """Do what was decided for up to now, ``elapsed`` seconds into the show."""
        while self._acts and self._acts[0][0] <= elapsed:
            _, _, act = heapq.heappop(self._acts)
            try:
                act(elapsed)
            except BookingRefusedError as refusal:
                self._say("refused", str(refusal))

    def _plan(self, at: float, act: Callable[[float], None]) -> None:
        heapq.heappush(self._acts, (at, next(self._numbers), act))

    def _book(self, elapsed: float) -> None:
        self._plan(elapsed + min(3.0, self._rng.expovariate(1 / BETWEEN_BOOKINGS)), self._book)
        now = clock.utcnow()
        student_id = self._rng.choice(self._people.students)
        service_id = self._rng.choice(self._people.services)
        starts_at = self._some_start(now)
        confirmed_at = elapsed + self._rng.uniform(*CONFIRMED_AFTER)
        cancelled_at = confirmed_at + self._rng.uniform(*CANCELLED_AFTER)
        confirms = self._rng.random() >= NEVER_CONFIRMED
        cancels = self._rng.random() < CANCELLED
        with db.transaction() as session:
            lesson = bookings.book(
                session,
                student_id=student_id,
                service_id=service_id,
                starts_at=starts_at,
                now=now,
            )
        self._say("booked", f"lesson {lesson.id}, which begins in {_spoken(starts_at - now)}")
        if confirms:
            self._plan(confirmed_at, lambda _: self._confirm(lesson.id))
        if cancels:
            self._plan(cancelled_at, lambda _: self._cancel(lesson.id))

    def _confirm(self, lesson_id: int) -> None:
        with db.transaction() as session:
            bookings.confirm(session, lesson_id, now=clock.utcnow())
        self._say("confirmed", f"lesson {lesson_id}")

    def _cancel(self, lesson_id: int) -> None:
        with db.transaction() as session:
            bookings.cancel(session, lesson_id, now=clock.utcnow())
        self._say("cancelled", f"lesson {lesson_id}")

    def _some_start(self, now: datetime) -> datetime:
        this_minute = now.replace(second=0, microsecond=0)
        kind = self._rng.random()
        if kind < 0.1:
            return this_minute + MINUTE * self._rng.randint(50, 70)
        if kind < 0.3:
            return this_minute + MINUTE * self._rng.randint(22 * 60, 26 * 60)
        day = this_minute.replace(hour=0, minute=0) + timedelta(days=self._rng.randint(2, 60))
        return day + timedelta(minutes=30 * self._rng.randint(16, 40))


def _spoken(wait: timedelta) -> str:
    minutes = round(wait / MINUTE)
    if minutes < 120:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{round(minutes / 60)} h"
    return f"{round(minutes / 60 / 24)} days"
