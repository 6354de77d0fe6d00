"""Runs in a container: a marketplace's own process, which books and confirms one lesson."""

import sys
from datetime import timedelta

from app import clock, db
from app.models import AvailabilityWindow, Role, Service, User
from app.services import bookings

student_email, instructor_email = sys.argv[1:]
now = clock.utcnow()
with db.transaction() as session:
    student = User(role=Role.STUDENT, name="Ada", email=student_email, time_zone="US/Pacific")
    instructor = User(role=Role.INSTRUCTOR, name="Bob", email=instructor_email, time_zone="UTC")
    session.add_all([student, instructor])
    session.flush()
    service = Service(instructor_id=instructor.id, name="Piano", minutes=45, price_cents=5_000)
    session.add(service)
    session.add_all(
        AvailabilityWindow(
            instructor_id=instructor.id, weekday=day, starts_minute=0, ends_minute=1440
        )
        for day in range(7)
    )
    session.flush()
    lesson = bookings.book(
        session,
        student_id=student.id,
        service_id=service.id,
        starts_at=now.replace(minute=0, second=0, microsecond=0) + timedelta(days=3),
        now=now,
    )
    bookings.confirm(session, lesson.id, now=now)
print("confirmed")  # noqa: T201
