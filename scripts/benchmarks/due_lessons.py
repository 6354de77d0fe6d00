"""A marketplace in which a number of lessons are due for their reminder."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import insert

from app import clock, db
from app.models import Booking, BookingStatus, Role, Service, User

LESSONS_OF_AN_INSTRUCTOR = 20
FIRST_HOUR = 2
"""From now: the 24 h reminder of all of them is due, and stays due for a good while."""
ZONES = ("US/Eastern", "US/Pacific", "Europe/Berlin", "Asia/Tokyo")
_BATCH = 5000


def move_in(count: int) -> None:
    """``count`` confirmed lessons, each of another student, who gets one mail for it.

    Instructors have unsubscribed, so that a lesson is a mail.
    """
    instructors = -(-count // LESSONS_OF_AN_INSTRUCTOR)
    now = clock.utcnow()
    hour = now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=FIRST_HOUR)
    people = [
        _person(number, Role.INSTRUCTOR, wants_reminders=False)
        for number in range(1, instructors + 1)
    ]
    people += [
        _person(number, Role.STUDENT, wants_reminders=True)
        for number in range(instructors + 1, instructors + 1 + count)
    ]
    services = [
        {
            "id": number,
            "instructor_id": number,
            "name": f"Guitar lesson {number}",
            "minutes": 45,
            "price_cents": 4500,
        }
        for number in range(1, instructors + 1)
    ]
    lessons = []
    for number in range(count):
        instructor, turn = divmod(number, LESSONS_OF_AN_INSTRUCTOR)
        starts_at = hour + timedelta(hours=turn)
        lessons.append(
            {
                "student_id": instructors + 1 + number,
                "instructor_id": instructor + 1,
                "service_id": instructor + 1,
                "starts_at": starts_at,
                "ends_at": starts_at + timedelta(minutes=45),
                "status": BookingStatus.CONFIRMED,
                "price_cents": 4500,
                "created_at": now - timedelta(days=4),
                "confirmed_at": now - timedelta(days=3),
            }
        )
    with db.transaction() as session:
        for table, rows in ((User, people), (Service, services), (Booking, lessons)):
            for start in range(0, len(rows), _BATCH):
                session.execute(insert(table), rows[start : start + _BATCH])


def _person(number: int, role: Role, *, wants_reminders: bool) -> dict[str, object]:
    return {
        "id": number,
        "role": role,
        "name": f"{role.value} {number}",
        "email": f"{role.value}{number}@people.example",
        "time_zone": ZONES[number % len(ZONES)],
        "wants_reminders": wants_reminders,
    }
