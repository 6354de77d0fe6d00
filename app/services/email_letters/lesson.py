"""Mails about a lesson, to either side."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache, cached_property
from typing import Any

from sqlalchemy import Connection, Select

from app.domain.emails import is_pointless
from app.models import BOOKINGS, EMAIL_MESSAGES, SERVICES, USERS, EmailKind
from app.services.email_letters.letter import Letter, envelope_of
from app.services.email_letters.wording import dollars, untrusted
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

    @cached_property
    def begins(self) -> str:
        """On the reader's clock."""
        return self.in_local_time(self.starts_at)

    @property
    def subject(self) -> str:
        return SUBJECTS[self.kind].format(service=untrusted(self.service_name), begins=self.begins)

    def facts(self, settings: Settings) -> dict[str, Any]:
        return {
            "teaches": self.reader_teaches,
            "student": untrusted(self.student_name),
            "instructor": untrusted(self.instructor_name),
            "service": untrusted(self.service_name),
            "begins": self.begins,
            "minutes": self.minutes,
            "price": dollars(self.price_cents),
            "starts_soon": self.kind is EmailKind.REMINDER_1H,
            "student_came": self.student_came,
            "instructor_came": self.instructor_came,
        }


def read(
    connection: Connection, email_id: int, kind: EmailKind, *, now: datetime
) -> LessonLetter | None:
    """The mail about a booking; ``None`` where it is unwanted, or pointless by now.

    Raises ``MissingRowError``.
    """
    row = connection.execute(_letter(kind), {"email_id": email_id}).one_or_none()
    if row is None:
        return None
    if row.status is None:
        raise MissingRowError("its booking is gone")
    if is_pointless(kind, status=row.status, starts_at=row.starts_at, now=now):
        return None
    return LessonLetter(
        kind=kind,
        subject_id=row.subject_id,
        recipient_id=row.recipient_id,
        reader_name=row.reader_name,
        reader_address=row.reader_address,
        reader_zone=row.reader_zone,
        reader_teaches=row.recipient_id == row.instructor_id,
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
def _letter(kind: EmailKind) -> Select[*tuple[Any, ...]]:
    student, instructor = USERS.alias(), USERS.alias()
    booking = BOOKINGS.c
    return (
        envelope_of(kind)
        .add_columns(
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
        # Outer, so that a booking that is gone is told from a mail that nobody wants.
        .outerjoin(BOOKINGS, booking.id == EMAIL_MESSAGES.c.subject_id)
        .outerjoin(SERVICES, SERVICES.c.id == booking.service_id)
        .outerjoin(student, student.c.id == booking.student_id)
        .outerjoin(instructor, instructor.c.id == booking.instructor_id)
    )
