"""What happened before the show, so that every module has something to do in it."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from hashlib import sha256

from sqlalchemy.orm import Session

from app import db
from app.domain.calendar import day_of, day_span
from app.models import Booking, User, UserSession
from app.services import bookings, lessons
from scripts.demonstration.people import People

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)

TAUGHT_YESTERDAY = 3
MISSED_TODAY = 2
EXPIRED_SESSIONS = 5
OPEN_SESSIONS = 4

# Those at the end: the lessons that the show begins with are the first ones'.
_Pair = tuple[int, int]


@dataclass(frozen=True)
class Past:
    yesterday: date
    """In the schedule's zone: the last day whose metrics can be counted."""


def relive(people: People, *, zone: tzinfo, now: datetime) -> Past:
    """Let yesterday and this morning happen, through the services and at their own times."""
    whole_minute = now.replace(second=0, microsecond=0)
    yesterday = day_of(now, zone) - DAY
    noon = day_span(yesterday, zone)[0] + 12 * HOUR
    pairs = list(zip(reversed(people.students), reversed(people.services), strict=False))
    for student_id, service_id in _take(pairs, TAUGHT_YESTERDAY):
        taught = _agree(student_id, service_id, starts_at=noon, at=noon - 3 * DAY)
        _check_in(taught.id, taught.student_id, taught.instructor_id, at=noon)
    with db.transaction() as session:
        lessons.complete_finished(session, now=noon + 3 * HOUR)
    (withdrawn,) = _take(pairs, 1)
    cancelled = _agree(*withdrawn, starts_at=whole_minute + 20 * DAY, at=noon - 2 * DAY)
    with db.transaction() as session:
        bookings.cancel(session, cancelled.id, now=noon)
    for student_id, service_id in _take(pairs, MISSED_TODAY):
        missed = _agree(student_id, service_id, starts_at=whole_minute - 3 * HOUR, at=noon - DAY)
        _check_in(missed.id, missed.instructor_id, at=missed.starts_at)
    (attended,) = _take(pairs, 1)
    over = _agree(*attended, starts_at=whole_minute - 2 * HOUR, at=noon - DAY)
    _check_in(over.id, over.student_id, over.instructor_id, at=over.starts_at)
    (forgotten,) = _take(pairs, 1)
    _book(*forgotten, starts_at=whole_minute - HOUR, at=noon - DAY)
    with db.transaction() as session:
        _change_minds(session, people)
        _sign_in(session, people, now=now)
    return Past(yesterday)


def _take(pairs: list[_Pair], number: int) -> list[_Pair]:
    taken = pairs[:number]
    del pairs[:number]
    return taken


def _book(student_id: int, service_id: int, *, starts_at: datetime, at: datetime) -> Booking:
    with db.transaction() as session:
        return bookings.book(
            session, student_id=student_id, service_id=service_id, starts_at=starts_at, now=at
        )


def _agree(student_id: int, service_id: int, *, starts_at: datetime, at: datetime) -> Booking:
    lesson = _book(student_id, service_id, starts_at=starts_at, at=at)
    with db.transaction() as session:
        return bookings.confirm(session, lesson.id, now=at)


def _check_in(lesson_id: int, *user_ids: int, at: datetime) -> None:
    for user_id in user_ids:
        with db.transaction() as session:
            lessons.check_in(session, lesson_id, user_id=user_id, now=at)


def _change_minds(session: Session, people: People) -> None:
    """Two people want no reminders, one no digests: no mail may show that they were asked."""
    for user_id in people.students[:2]:
        session.get_one(User, user_id).wants_reminders = False
    session.get_one(User, people.students[-1]).wants_digests = False


def _sign_in(session: Session, people: People, *, now: datetime) -> None:
    until = [now - HOUR] * EXPIRED_SESSIONS + [now + 30 * DAY] * OPEN_SESSIONS
    session.add_all(
        UserSession(
            user_id=user_id,
            token_hash=sha256(f"session {user_id}".encode()).hexdigest(),
            created_at=now - 2 * DAY,
            expires_at=expires_at,
        )
        for user_id, expires_at in zip(people.students, until, strict=False)
    )
