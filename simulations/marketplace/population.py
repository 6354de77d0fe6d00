"""What people do in a replayed day: they book, confirm, cancel, check in, forget, and read."""

from __future__ import annotations

from bisect import bisect
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import accumulate
from math import log
from random import Random
from zoneinfo import ZoneInfo

from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError

from app import clock, db
from app.domain.bookings import BookingRefusedError
from app.models import Notification, User
from app.services import bookings, lessons, password_resets
from simulations.engine import Deployment
from simulations.marketplace.people import DAY, HOUR, MINUTE, Agreed, Calendar, People, pick

BUSY_AGAIN_SECONDS = 7.0
"""Who is told that the database is busy tries again after this."""

# Bookings by local hour of the day, relative to each other: quiet nights, a lunch break, and
# most of it after work.
HOURLY = (2, 1, 1, 1, 1, 2, 5, 10, 16, 18, 18, 20, 24, 20, 18, 18, 22, 28, 34, 38, 36, 26, 14, 6)

STORM_MINUTES = 5


@dataclass(frozen=True)
class Storm:
    """So many bookings within five minutes."""

    at: datetime
    bookings: int


def arrivals(
    rng: Random, number: int, *, start: datetime, end: datetime, zone: ZoneInfo
) -> list[datetime]:
    """When ``number`` people come between two instants, by the hour on ``zone``'s wall clock.

    A Poisson process whose rate changes with time, given its number of events: then they are
    independent draws with the rate as their density (Ross, "Introduction to Probability
    Models", 5.4.1).
    """
    hours = int((end - start) / HOUR)
    begins = [start + hour * HOUR for hour in range(hours)]
    weights = list(accumulate(HOURLY[begin.astimezone(zone).hour] for begin in begins))
    drawn = [
        begins[bisect(weights, rng.random() * weights[-1])] + rng.random() * HOUR
        for _ in range(number)
    ]
    return sorted(drawn)


class Population:
    """Acts in the deployment's web process, by its own generators alone."""

    def __init__(
        self, deployment: Deployment, people: People, calendar: Calendar, *, end: datetime
    ) -> None:
        self.acts: Counter[str] = Counter()
        self._deployment = deployment
        self._people = people
        self._calendar = calendar
        self._end = end

    def plan(
        self,
        *,
        start: datetime,
        until: datetime,
        zone: ZoneInfo,
        number: int,
        agreed: Sequence[Agreed],
        storm: Storm | None = None,
    ) -> None:
        """Decide who will come when; what they then do follows from it.

        ``number`` come from ``start`` to ``until``; those after the end stay away.
        """
        rng = self._deployment.rng("arrivals")
        for position, instant in enumerate(
            arrivals(rng, number, start=start, end=until, zone=zone)
        ):
            self._at(instant, partial(self._book, Random(f"{self._seed}:{position}")))
        if storm is not None:
            rushing = self._deployment.rng("storm")
            for position in range(storm.bookings):
                instant = storm.at + rushing.random() * STORM_MINUTES * MINUTE
                self._at(instant, partial(self._book, Random(f"{self._seed}:storm:{position}")))
        coming = self._deployment.rng("lessons")
        for lesson in agreed:
            self._attend(lesson, coming)
        self._plan_reading(start)

    @property
    def _seed(self) -> int:
        return self._deployment.seed

    def _at(self, instant: datetime, act: Callable[[], None]) -> None:
        if instant < self._end:
            self._deployment.call_at(instant, lambda: self._try(act))

    def _try(self, act: Callable[[], None]) -> None:
        try:
            act()
        except BookingRefusedError as refusal:
            self.acts[f"refused: {type(refusal).__name__}"] += 1
        except OperationalError:
            self.acts["told that the database is busy"] += 1
            again = self._deployment.now + timedelta(seconds=BUSY_AGAIN_SECONDS)
            # Also after the end of the day: nobody gives up half-way.
            self._deployment.call_at(again, lambda: self._try(act))

    def _book(self, rng: Random) -> None:
        now = clock.utcnow()
        lead = min(30 * DAY, 5 * MINUTE + rng.lognormvariate(log(36), 1.3) * HOUR)
        found = pick(self._people, self._calendar, rng, around=now + lead, after=now + 5 * MINUTE)
        if found is None:
            self.acts["found no free hour"] += 1
            return
        student_id, instructor, starts_at = found

        def book() -> None:
            with db.transaction() as session:
                lesson = bookings.book(
                    session,
                    student_id=student_id,
                    service_id=instructor.service_id,
                    starts_at=starts_at,
                    now=clock.utcnow(),
                )
            self.acts["booked"] += 1
            self._after_booking(
                Agreed(lesson.id, student_id, instructor.id, starts_at, lesson.ends_at), rng
            )

        self._try(book)

    def _after_booking(self, lesson: Agreed, rng: Random) -> None:
        now = clock.utcnow()
        confirmed = now + rng.lognormvariate(log(6), 1.0) * MINUTE
        if rng.random() < 0.95:
            self._at(confirmed, lambda: self._confirm(lesson, rng))
        if rng.random() < 0.02:
            self._at(confirmed + MINUTE, lambda: self._forget_password(lesson.student_id, rng))

    def _confirm(self, lesson: Agreed, rng: Random) -> None:
        now = clock.utcnow()
        with db.transaction() as session:
            bookings.confirm(session, lesson.booking_id, now=now)
        self.acts["confirmed"] += 1
        if rng.random() < 0.12:
            cancelled = now + rng.random() * min(lesson.starts_at - now, DAY)
            self._at(cancelled, lambda: self._cancel(lesson))
        else:
            self._attend(lesson, rng)

    def _cancel(self, lesson: Agreed) -> None:
        with db.transaction() as session:
            bookings.cancel(session, lesson.booking_id, now=clock.utcnow())
        self.acts["cancelled"] += 1

    def _attend(self, lesson: Agreed, rng: Random) -> None:
        if rng.random() < 0.06:
            at = lesson.starts_at - rng.uniform(0.1, 20) * HOUR
            if at > self._deployment.now:
                self._at(at, lambda: self._cancel(lesson))
                return
        for user_id, comes in ((lesson.student_id, 0.94), (lesson.instructor_id, 0.97)):
            at = lesson.starts_at + rng.uniform(-14, 20) * MINUTE
            if rng.random() < comes and at > self._deployment.now:
                self._at(at, partial(self._check_in, lesson, user_id))

    def _check_in(self, lesson: Agreed, user_id: int) -> None:
        with db.transaction() as session:
            lessons.check_in(session, lesson.booking_id, user_id=user_id, now=clock.utcnow())
        self.acts["checked in"] += 1

    def _forget_password(self, user_id: int, rng: Random) -> None:
        with db.transaction() as session:
            address = session.get_one(User, user_id).email
            password_resets.request(session, address, now=clock.utcnow(), rng=rng)
        self.acts["forgot a password"] += 1

    def _plan_reading(self, start: datetime) -> None:
        """Somebody reads notifications every quarter of an hour."""
        rng = self._deployment.rng("readers")
        instant = start + 7 * MINUTE
        while instant < self._end:
            self._at(instant, partial(self._read, rng.random()))
            instant += 15 * MINUTE

    def _read(self, draw: float) -> None:
        chosen = self._people.students[int(draw * len(self._people.students))]
        with db.transaction() as session:
            unread = select(Notification.id).where(
                Notification.user_id == chosen, Notification.read_at.is_(None)
            )
            session.execute(
                update(Notification)
                .where(Notification.id.in_(unread))
                .values(read_at=clock.utcnow())
                .execution_options(synchronize_session=False)
            )
        self.acts["read"] += 1
