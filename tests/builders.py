"""Arranging a marketplace for a test: each builder adds one thing, with what it needs."""

from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from itertools import count, islice
from typing import Any, TypeVar

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from app.domain.availability import WeeklyWindow
from app.models import (
    AvailabilityWindow,
    Booking,
    BookingStatus,
    DailyMetrics,
    EmailKind,
    EmailMessage,
    EmailState,
    InstructorMetrics,
    Notification,
    NotificationKind,
    OutboxEntry,
    PasswordReset,
    Role,
    Service,
    User,
)

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
"""An instant for tests that do not care which: a Monday, in winter everywhere in the north."""
A_TOKEN = "nobody-guesses-this"

ROUND_THE_CLOCK = tuple(WeeklyWindow(weekday, 0, 1440) for weekday in range(7))

_numbers = count(1)

Row = TypeVar("Row")


def a_student(
    session: Session,
    *,
    name: str = "Ada Student",
    email: str | None = None,
    time_zone: str = "America/New_York",
) -> User:
    return _a_user(session, Role.STUDENT, name=name, email=email, time_zone=time_zone)


def an_instructor(
    session: Session,
    *,
    name: str = "Bob Instructor",
    email: str | None = None,
    time_zone: str = "Europe/Berlin",
    windows: Iterable[WeeklyWindow] = ROUND_THE_CLOCK,
) -> User:
    """An instructor who teaches at any time, unless said."""
    user = _a_user(session, Role.INSTRUCTOR, name=name, email=email, time_zone=time_zone)
    session.add_all(
        AvailabilityWindow(instructor_id=user.id, **asdict(window)) for window in windows
    )
    session.flush()
    return user


def _a_user(session: Session, role: Role, *, name: str, email: str | None, time_zone: str) -> User:
    address = email or f"{role.value}{next(_numbers)}@people.example"
    return _added(session, User(role=role, name=name, email=address, time_zone=time_zone))


def a_service(
    session: Session,
    *,
    instructor: User | None = None,
    name: str = "Guitar",
    minutes: int = 60,
    price_cents: int = 4_500,
) -> Service:
    teacher = instructor or an_instructor(session)
    service = Service(instructor_id=teacher.id, name=name, minutes=minutes, price_cents=price_cents)
    return _added(session, service)


def a_lesson(
    session: Session,
    *,
    starts_at: datetime,
    status: BookingStatus = BookingStatus.CONFIRMED,
    confirmed_at: datetime | None = None,
    student: User | None = None,
    service: Service | None = None,
    student_checked_in_at: datetime | None = None,
    instructor_checked_in_at: datetime | None = None,
) -> Booking:
    """A lesson as the services would have left it; confirmed a week before, unless said."""
    student = student or a_student(session)
    service = service or a_service(session)
    agreed_at = confirmed_at or starts_at - timedelta(days=7)
    was_confirmed = status is not BookingStatus.PENDING
    lesson = Booking(
        student_id=student.id,
        instructor_id=service.instructor_id,
        service_id=service.id,
        starts_at=starts_at,
        ends_at=starts_at + timedelta(minutes=service.minutes),
        status=status,
        price_cents=service.price_cents,
        created_at=agreed_at - timedelta(hours=1),
        confirmed_at=agreed_at if was_confirmed else None,
        cancelled_at=agreed_at if status is BookingStatus.CANCELLED else None,
        student_checked_in_at=student_checked_in_at,
        instructor_checked_in_at=instructor_checked_in_at,
    )
    return _added(session, lesson)


def a_crowd(session: Session, number: int, role: Role = Role.STUDENT) -> list[int]:
    """Ids of as many people, in one statement."""
    people = [
        {
            "role": role,
            "name": f"{role.value} {position}",
            "email": f"{role.value}{position}@crowd.example",
            "time_zone": "America/New_York",
        }
        for position in islice(_numbers, number)
    ]
    inserted = insert(User).returning(User.id, sort_by_parameter_order=True)
    return list(session.scalars(inserted, people))


def many_lessons(session: Session, number: int, *, starts_at: datetime) -> list[int]:
    """Ids of confirmed lessons that begin together, each of its own student and instructor."""
    students = a_crowd(session, number, Role.STUDENT)
    instructors = a_crowd(session, number, Role.INSTRUCTOR)
    service = a_service(session)
    lessons = session.scalars(
        insert(Booking).returning(Booking.id, sort_by_parameter_order=True),
        [
            {
                "student_id": student,
                "instructor_id": instructor,
                "service_id": service.id,
                "starts_at": starts_at,
                "ends_at": starts_at + timedelta(minutes=60),
                "status": BookingStatus.CONFIRMED,
                "price_cents": 4_500,
                "created_at": starts_at - timedelta(days=7),
                "confirmed_at": starts_at - timedelta(days=7),
            }
            for student, instructor in zip(students, instructors, strict=True)
        ],
    )
    return list(lessons)


def a_mail(
    session: Session,
    *,
    about: Booking,
    kind: EmailKind = EmailKind.BOOKING_CONFIRMATION,
    to: User | None = None,
    state: EmailState = EmailState.QUEUED,
    leased_until: datetime | None = None,
) -> EmailMessage:
    """A row of the outgoing mail, to the lesson's student unless said."""
    mail = EmailMessage(
        kind=kind,
        subject_id=about.id,
        recipient_id=to.id if to else about.student_id,
        state=state,
        created_at=about.created_at,
        leased_until=leased_until,
        claims=1 if state is EmailState.SENDING else 0,
    )
    return _added(session, mail)


def a_password_reset(
    session: Session,
    *,
    user: User | None = None,
    token: str = A_TOKEN,
    created_at: datetime = NOON,
    expires_at: datetime | None = None,
) -> PasswordReset:
    """A reset whose mail has not gone out; it expires after an hour unless said."""
    user = user or a_student(session)
    reset = PasswordReset(
        user_id=user.id,
        token=token,
        token_hash=sha256(token.encode()).hexdigest(),
        created_at=created_at,
        expires_at=expires_at or created_at + timedelta(hours=1),
    )
    return _added(session, reset)


def a_notification(
    session: Session,
    *,
    user: User,
    created_at: datetime = NOON,
    read_at: datetime | None = None,
    title: str = "Lesson confirmed",
    body: str = "Guitar with Bob Instructor",
) -> Notification:
    notification = Notification(
        user_id=user.id,
        kind=NotificationKind.BROADCAST,
        key=f"notification:{next(_numbers)}",
        title=title,
        body=body,
        created_at=created_at,
        read_at=read_at,
    )
    return _added(session, notification)


def an_instructors_day(
    session: Session,
    *,
    instructor: User,
    date: date,
    completed: int = 1,
    cancelled: int = 0,
    no_shows: int = 0,
    revenue_cents: int = 4_500,
) -> InstructorMetrics:
    """One day's figures, as the analytics leave them."""
    figures = InstructorMetrics(
        date=date,
        instructor_id=instructor.id,
        bookings_created=0,
        bookings_completed=completed,
        bookings_cancelled=cancelled,
        no_shows=no_shows,
        revenue_cents=revenue_cents,
        active_students=completed,
        computed_at=NOON,
    )
    return _added(session, figures)


def a_counted_day(session: Session, day: date) -> DailyMetrics:
    """A day on which nothing happened, counted."""
    figures = DailyMetrics(
        date=day,
        bookings_created=0,
        bookings_completed=0,
        bookings_cancelled=0,
        no_shows=0,
        revenue_cents=0,
        active_students=0,
        active_instructors=0,
        mails_sent=0,
        mails_failed=0,
        tasks_done=0,
        tasks_dead=0,
        computed_at=NOON,
    )
    return _added(session, figures)


def _added(session: Session, row: Row) -> Row:
    session.add(row)
    session.flush()
    return row


def planned(session: Session) -> list[tuple[str, list[Any]]]:
    """Task and arguments of what is pending in the outbox, oldest first."""
    rows = session.execute(
        select(OutboxEntry.task, OutboxEntry.args)
        .where(OutboxEntry.pending())
        .order_by(OutboxEntry.created_at, OutboxEntry.id)
    )
    return [(task, args) for task, args in rows]


def all_mails(session: Session) -> list[EmailMessage]:
    """Every row of the outgoing mail, as the database has it now."""
    return list(
        session.scalars(
            select(EmailMessage).order_by(EmailMessage.id).execution_options(populate_existing=True)
        )
    )


def all_notifications(session: Session) -> list[Notification]:
    """Every notification, as the database has it now."""
    return list(
        session.scalars(
            select(Notification).order_by(Notification.id).execution_options(populate_existing=True)
        )
    )
