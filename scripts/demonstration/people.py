"""Who lives in the demo's marketplace: made-up students, and instructors with what they teach."""

from dataclasses import dataclass
from itertools import cycle, islice

from app import db
from app.domain.availability import DAYS_OF_A_WEEK, MINUTES_OF_A_DAY
from app.models import AvailabilityWindow, Role, Service, User

STUDENTS = 40
ZONES = (
    "America/New_York",
    "America/Los_Angeles",
    "America/Sao_Paulo",
    "Europe/Berlin",
    "Africa/Nairobi",
    "Asia/Kolkata",
    "Asia/Tokyo",
    "Australia/Lord_Howe",
)
TAUGHT = (
    ("Guitar", 60, 4_500),
    ("Piano", 45, 5_000),
    ("Spanish", 30, 2_500),
    ("Algebra", 60, 3_800),
    ("Chess", 45, 3_000),
    ("Yoga", 60, 2_000),
    ("Drawing", 60, 3_500),
    ("Cello", 45, 5_500),
)
INSTRUCTORS = 3 * len(TAUGHT)


@dataclass(frozen=True)
class People:
    """Ids, as the marketplace knows its people."""

    students: tuple[int, ...]
    services: tuple[int, ...]
    """One for each instructor."""


def move_in() -> People:
    """Put students, instructors, their services and hours into an empty database."""
    with db.transaction() as session:
        students = [
            User(
                role=Role.STUDENT,
                name=f"Student {number}",
                email=f"student{number}@people.example",
                time_zone=zone,
            )
            for number, zone in enumerate(islice(cycle(ZONES), STUDENTS), 1)
        ]
        instructors = [
            User(
                role=Role.INSTRUCTOR,
                name=f"Instructor {number}",
                email=f"instructor{number}@people.example",
                time_zone=zone,
            )
            for number, zone in enumerate(islice(cycle(ZONES), INSTRUCTORS), 1)
        ]
        session.add_all([*students, *instructors])
        session.flush()
        services = [
            Service(instructor_id=instructor.id, name=name, minutes=minutes, price_cents=cents)
            for instructor, (name, minutes, cents) in zip(instructors, cycle(TAUGHT), strict=False)
        ]
        session.add_all(services)
        # Round the clock: lessons of the show begin within minutes of whenever it is given.
        session.add_all(
            AvailabilityWindow(
                instructor_id=instructor.id,
                weekday=weekday,
                starts_minute=0,
                ends_minute=MINUTES_OF_A_DAY,
            )
            for instructor in instructors
            for weekday in range(DAYS_OF_A_WEEK)
        )
        session.flush()
        return People(
            students=tuple(student.id for student in students),
            services=tuple(service.id for service in services),
        )
