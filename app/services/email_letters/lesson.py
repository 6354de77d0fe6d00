"""Mails about a lesson, to either side."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import Select, bindparam, select
from sqlalchemy.orm import Session

from app.domain.emails import is_pointless
from app.models import BOOKINGS, SERVICES, USERS, EmailKind
from app.services.email_letters.letter import Envelope, Letter
from app.services.email_letters.wording import dollars, one_line
from app.services.errors import MissingRowError
from app.settings import Settings

SUBJECTS = {
    EmailKind.BOOKING_CONFIRMATION: "Confirmed: {service}, {begins}",
    EmailKind.BOOKING_CANCELLATION: "Cancelled: {service}, {begins}",
    EmailKind.REMINDER_24H: "Reminder: {service}, {begins}",
    EmailKind.REMINDER_1H: "Starting soon: {service}, {begins}",
    EmailKind.NO_SHOW: "Missed: {service}, {begins}",
}
_TEMPLATES = {
    EmailKind.BOOKING_CONFIRMATION: "confirmation",
    EmailKind.BOOKING_CANCELLATION: "cancellation",
    EmailKind.REMINDER_24H: "reminder",
    EmailKind.REMINDER_1H: "reminder",
    EmailKind.NO_SHOW: "no_show",
}


@dataclass(frozen=True, kw_only=True)
class LessonLetter(Letter):
    reader_teaches: bool
    """Whether the reader is the instructor."""
    student_name: str
    instructor_name: str
    service_name: str
    starts_at: datetime
    minutes: int
    price_cents: int
    student_came: bool
    """Whether the student checked in; only a no-show notice says so."""
    instructor_came: bool

    @property
    def template(self) -> str:
        return _TEMPLATES[self.kind]

    @property
    def subject(self) -> str:
        return SUBJECTS[self.kind].format(
            service=one_line(self.service_name), begins=self.in_local_time(self.starts_at)
        )

    def facts(self, settings: Settings) -> dict[str, Any]:
        return {
            "teaches": self.reader_teaches,
            "student": one_line(self.student_name),
            "instructor": one_line(self.instructor_name),
            "service": one_line(self.service_name),
            "begins": self.in_local_time(self.starts_at),
            "minutes": self.minutes,
            "price": dollars(self.price_cents),
            "starts_soon": self.kind is EmailKind.REMINDER_1H,
            "student_came": self.student_came,
            "instructor_came": self.instructor_came,
        }


def read(session: Session, envelope: Envelope, *, now: datetime) -> LessonLetter | None:
    """The mail about a booking; ``None`` where it is pointless by now.

    Raises ``MissingRowError``.
    """
    row = session.execute(_lesson(), {"booking_id": envelope.subject_id}).one_or_none()
    if row is None:
        raise MissingRowError("its booking is gone")
    if is_pointless(envelope.kind, status=row.status, starts_at=row.starts_at, now=now):
        return None
    return LessonLetter(
        **vars(envelope),
        reader_teaches=envelope.recipient_id == row.instructor_id,
        student_name=row.student_name,
        instructor_name=row.instructor_name,
        service_name=row.service_name,
        starts_at=row.starts_at,
        minutes=(row.ends_at - row.starts_at) // timedelta(minutes=1),
        price_cents=row.price_cents,
        student_came=row.student_checked_in_at is not None,
        instructor_came=row.instructor_checked_in_at is not None,
    )


@cache
def _lesson() -> Select[*tuple[Any, ...]]:
    # Built once, and of tables: building it, or the ORM's part, takes longer than to run it.
    student, instructor = USERS.alias(), USERS.alias()
    booking = BOOKINGS.c
    return (
        select(
            booking.status,
            booking.starts_at,
            booking.ends_at,
            booking.instructor_id,
            booking.price_cents,
            booking.student_checked_in_at,
            booking.instructor_checked_in_at,
            SERVICES.c.name.label("service_name"),
            student.c.name.label("student_name"),
            instructor.c.name.label("instructor_name"),
        )
        .join_from(BOOKINGS, SERVICES, SERVICES.c.id == booking.service_id)
        .join(student, student.c.id == booking.student_id)
        .join(instructor, instructor.c.id == booking.instructor_id)
        .where(booking.id == bindparam("booking_id"))
    )
