"""Who lives in a replayed marketplace, and what happened there before the first day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from random import Random
from zoneinfo import ZoneInfo

from sqlalchemy import insert
from sqlalchemy.orm import Session

from app.models import (
    AvailabilityWindow,
    Booking,
    BookingStatus,
    Notification,
    NotificationKind,
    Role,
    Service,
    User,
    UserSession,
)

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)

ZONES = (
    ("America/New_York", 40),
    ("America/Chicago", 15),
    ("America/Los_Angeles", 20),
    ("America/Sao_Paulo", 5),
    ("Europe/Berlin", 8),
    ("Asia/Kolkata", 8),
    ("Australia/Lord_Howe", 4),
)
TAUGHT = (("Guitar", 60, 4_500), ("Piano", 45, 5_000), ("Spanish", 30, 2_500), ("Yoga", 60, 2_000))


@dataclass(frozen=True)
class Instructor:
    id: int
    service_id: int
    zone: ZoneInfo
    minutes: int
    price_cents: int
    weekdays: tuple[int, ...]
    opens: int
    closes: int
    """Minutes after midnight on the instructor's wall clock."""

    def start_on(self, day: datetime, slot: int) -> datetime | None:
        """The start (UTC) of a slot of ``day``'s local date; ``None`` where there is none."""
        local = day.astimezone(self.zone)
        if local.weekday() not in self.weekdays:
            return None
        minute = self.opens + slot * 60
        if minute + self.minutes > self.closes:
            return None
        start = local.replace(
            hour=minute // 60, minute=minute % 60, second=0, microsecond=0, fold=0
        ).astimezone(UTC)
        # A wall clock that skips this hour shows another one when it is asked again.
        if start.astimezone(self.zone).hour != minute // 60:
            return None
        return start

    @property
    def slots(self) -> int:
        return (self.closes - self.opens) // 60


@dataclass(frozen=True)
class People:
    students: tuple[int, ...]
    instructors: tuple[Instructor, ...]


def move_in(session: Session, rng: Random, *, students: int, instructors: int) -> People:
    """Put people, services and weekly hours into an empty database."""
    names, weights = zip(*ZONES, strict=True)

    def person(role: Role, number: int) -> User:
        return User(
            role=role,
            name=f"{role.value.title()} {number}",
            email=f"{role.value}{number}@people.example",
            time_zone=rng.choices(names, weights)[0],
            wants_booking_mails=rng.random() >= 0.02,
            wants_reminders=rng.random() >= 0.1,
            wants_digests=rng.random() >= 0.3,
        )

    learners = [person(Role.STUDENT, number) for number in range(1, students + 1)]
    teachers = [person(Role.INSTRUCTOR, number) for number in range(1, instructors + 1)]
    session.add_all([*learners, *teachers])
    session.flush()
    taught: list[Instructor] = []
    for user in teachers:
        name, minutes, cents = rng.choice(TAUGHT)
        service = Service(instructor_id=user.id, name=name, minutes=minutes, price_cents=cents)
        session.add(service)
        session.flush()
        opens = 60 * rng.randint(7, 11)
        closes = min(opens + 60 * rng.randint(8, 12), 22 * 60)
        weekdays = tuple(sorted(rng.sample(range(7), rng.randint(5, 7))))
        session.add_all(
            AvailabilityWindow(
                instructor_id=user.id, weekday=weekday, starts_minute=opens, ends_minute=closes
            )
            for weekday in weekdays
        )
        taught.append(
            Instructor(
                user.id,
                service.id,
                ZoneInfo(user.time_zone),
                minutes,
                cents,
                weekdays,
                opens,
                closes,
            )
        )
    session.flush()
    return People(tuple(user.id for user in learners), tuple(taught))


@dataclass(frozen=True)
class Agreed:
    """A lesson that was confirmed before the first day."""

    booking_id: int
    student_id: int
    instructor_id: int
    starts_at: datetime
    ends_at: datetime


class Calendar:
    """Who is taken when, so that the population seldom asks for what is not free."""

    def __init__(self) -> None:
        self._taken: set[tuple[int, datetime]] = set()

    def take(self, instructor_id: int, student_id: int, start: datetime) -> bool:
        """Take the hour of ``start`` for both, if both are free then and just before."""
        keys = [
            (person, start + offset)
            for person in (instructor_id, student_id)
            for offset in (-MINUTE * 30, MINUTE * 0, MINUTE * 30)
        ]
        if any(key in self._taken for key in keys):
            return False
        self._taken.update(keys)
        return True


def live_before(
    session: Session,
    people: People,
    calendar: Calendar,
    rng: Random,
    *,
    start: datetime,
    days: int,
    lessons: int,
) -> list[Agreed]:
    """Yesterday's lessons, with how they ended, and those agreed on for the days to come.

    Their mails went out before; the rows say only what the marketplace remembers.
    """
    rows: list[dict[str, object]] = []
    for offset in range(-1, days + 2):
        for _ in range(lessons):
            found = pick(people, calendar, rng, around=start + offset * DAY + 12 * HOUR)
            if found is None:
                continue
            student_id, instructor, begins = found
            rows.append(_remembered(student_id, instructor, begins, start, rng))
    if not rows:
        return []  # SQLAlchemy would insert one row of defaults
    rows.sort(key=lambda row: str(row["starts_at"]))
    columns = ("status", "confirmed_at", "cancelled_at", "completed_at", "no_show_at")
    checked = ("student_checked_in_at", "instructor_checked_in_at")
    for row in rows:
        for column in (*columns, *checked):
            row.setdefault(column, None)
    inserted = session.execute(
        insert(Booking).returning(
            Booking.id,
            Booking.student_id,
            Booking.instructor_id,
            Booking.starts_at,
            Booking.ends_at,
            Booking.status,
            sort_by_parameter_order=True,
        ),
        rows,
    ).all()
    return [
        Agreed(*row[:5])
        for row in inserted
        if row.status is BookingStatus.CONFIRMED and row.starts_at > start
    ]


def pick(
    people: People,
    calendar: Calendar,
    rng: Random,
    *,
    around: datetime,
    after: datetime | None = None,
) -> tuple[int, Instructor, datetime] | None:
    """A student, an instructor and a free start on about that day; ``None`` after a few tries."""
    for _ in range(8):
        instructor = rng.choice(people.instructors)
        begins = instructor.start_on(around, rng.randrange(instructor.slots))
        if begins is None or (after is not None and begins <= after):
            continue
        student_id = rng.choice(people.students)
        if calendar.take(instructor.id, student_id, begins):
            return student_id, instructor, begins
    return None


def _remembered(
    student_id: int, instructor: Instructor, begins: datetime, start: datetime, rng: Random
) -> dict[str, object]:
    agreed = begins - rng.uniform(30, 120) * HOUR
    agreed = min(agreed, start - HOUR)
    ends = begins + instructor.minutes * MINUTE
    row: dict[str, object] = {
        "student_id": student_id,
        "instructor_id": instructor.id,
        "service_id": instructor.service_id,
        "starts_at": begins,
        "ends_at": ends,
        "price_cents": instructor.price_cents,
        "created_at": agreed - 10 * MINUTE,
        "confirmed_at": agreed,
        "status": BookingStatus.CONFIRMED,
    }
    if ends + HOUR >= start:
        return row
    chance = rng.random()
    if chance < 0.85:
        both = begins - 5 * MINUTE
        row |= {"student_checked_in_at": both, "instructor_checked_in_at": both}
        row |= {"status": BookingStatus.COMPLETED, "completed_at": ends + MINUTE}
    elif chance < 0.93:
        row |= {"status": BookingStatus.NO_SHOW, "no_show_at": ends + 16 * MINUTE}
    else:
        row |= {"status": BookingStatus.CANCELLED, "cancelled_at": begins - 5 * HOUR}
    return row


def keep_sessions(
    session: Session, people: People, rng: Random, *, start: datetime, days: int
) -> None:
    """Sign-ins that expire through the days, and notifications that were read long ago."""
    chosen: Sequence[int] = rng.sample(people.students, min(200, len(people.students)))
    session.add_all(
        UserSession(
            user_id=user_id,
            token_hash=sha256(f"session {user_id}".encode()).hexdigest(),
            created_at=start - 30 * DAY,
            expires_at=start + rng.uniform(-24, 24 * days + 24) * HOUR,
        )
        for user_id in chosen
    )
    session.add_all(
        Notification(
            user_id=user_id,
            kind=NotificationKind.BOOKING_CONFIRMED,
            title="Confirmed",
            body="Confirmed.",
            key=f"old:{user_id}",
            created_at=start - 60 * DAY,
            read_at=start - rng.uniform(25, 45) * DAY,
        )
        for user_id in chosen
    )
