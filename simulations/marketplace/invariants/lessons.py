"""Lessons: nobody has two at once, and the cached free hours are free."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select

from app import db
from app.models import Booking, BookingStatus
from app.services.availability import free_slots
from simulations.marketplace.invariants.invariant import Invariant


class NobodyDoubleBooked(Invariant):
    name = "nobody is double-booked"
    sentence = "No two lessons that are not cancelled overlap, for an instructor or a student."

    def conclude(self) -> None:
        with db.reading() as session:
            lessons = session.execute(
                select(
                    Booking.id,
                    Booking.instructor_id,
                    Booking.student_id,
                    Booking.starts_at,
                    Booking.ends_at,
                )
                .where(Booking.status != BookingStatus.CANCELLED)
                .order_by(Booking.starts_at, Booking.id)
            ).all()
        busy_until: dict[int, tuple[datetime, int]] = {}
        for lesson_id, instructor_id, student_id, starts_at, ends_at in lessons:
            for person in (instructor_id, student_id):
                until, other = busy_until.get(person, (starts_at, 0))
                if until > starts_at:
                    self.broken(f"lessons {other} and {lesson_id} overlap")
                busy_until[person] = (ends_at, lesson_id)


class FreeSlotsRight(Invariant):
    name = "free slots equal a recomputation"
    sentence = "The cached free slots of each instructor are what the tables say."

    def conclude(self) -> None:
        slots = self.replay.slots
        cached = slots.read([each for ids in slots.instructor_ids() for each in ids])
        with db.reading() as session:
            for instructor in self.replay.people.instructors:
                entry = cached.get(instructor.id)
                if entry is None:
                    self.broken(f"instructor {instructor.id} is not in the cache")
                    return
                (fresh,) = free_slots(session, [instructor.id], now=entry.computed_at).values()
                if {m: list(s) for m, s in entry.starts.items()} != {
                    m: list(s) for m, s in fresh.starts.items()
                }:
                    self.broken(
                        f"the cached slots of instructor {instructor.id} are not the tables'"
                    )
