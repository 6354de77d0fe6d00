"""Lessons whose confirmations are counted where the mails arrive."""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta
from urllib.request import urlopen

from app import clock, db
from app.models import AvailabilityWindow, Role, Service, User
from app.services import bookings
from scripts.live.ports import HOST

PAGE = 500


def confirm_lessons(count: int, *, prefix: str) -> set[str]:
    """Book and confirm ``count`` lessons; the addresses that are to get one mail each."""
    now = clock.utcnow()
    first = now.replace(minute=0, second=0, microsecond=0) + timedelta(days=3)
    readers = set()
    for number in range(count):
        with db.transaction() as session:
            student = User(
                role=Role.STUDENT,
                name="Ada",
                email=f"{prefix}-student-{number}@people.example",
                time_zone="UTC",
            )
            instructor = User(
                role=Role.INSTRUCTOR,
                name="Bob",
                email=f"{prefix}-instructor-{number}@people.example",
                time_zone="UTC",
            )
            session.add_all([student, instructor])
            session.flush()
            service = Service(
                instructor_id=instructor.id, name="Piano", minutes=45, price_cents=5_000
            )
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
                starts_at=first,
                now=now,
            )
            bookings.confirm(session, lesson.id, now=now)
            readers.update({student.email, instructor.email})
    return readers


def arrived(port: int, *, prefix: str) -> Counter[str]:
    """How many mails each address got whose name begins with ``prefix`` (Mailpit's API)."""
    found: Counter[str] = Counter()
    start = 0
    while True:
        url = f"http://{HOST}:{port}/api/v1/messages?start={start}&limit={PAGE}"
        with urlopen(url, timeout=30) as answer:
            page = json.load(answer)["messages"]
        if not page:
            return found
        found.update(
            reader["Address"]
            for mail in page
            for reader in mail["To"]
            if reader["Address"].startswith(f"{prefix}-")
        )
        start += len(page)
