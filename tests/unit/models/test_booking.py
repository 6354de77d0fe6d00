"""Neither side of a lesson is double-booked: the database itself refuses it."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from threading import Barrier

import pytest
from psycopg.errors import DeadlockDetected
from sqlalchemy import Engine, delete, select
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from app import db
from app.models import Booking, BookingStatus, Role, Service, User
from tests.builders import NOON, a_lesson, a_service, a_student, an_instructor

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
OTHERS_THAN_CANCELLED = [status for status in BookingStatus if status != BookingStatus.CANCELLED]

pytestmark = pytest.mark.usefixtures("database")


def test_two_lessons_that_touch_do_not_overlap() -> None:
    with db.transaction() as session:
        student, service = a_student(session), a_service(session, minutes=60)
        for starts_at in (NOON, NOON + HOUR, NOON - HOUR):
            a_lesson(session, starts_at=starts_at, student=student, service=service)


@pytest.mark.parametrize(
    ("start", "minutes"),
    [
        pytest.param(NOON, 60, id="the same span"),
        pytest.param(NOON + HOUR - MINUTE, 60, id="begins in its last minute"),
        pytest.param(NOON - HOUR + MINUTE, 60, id="ends in its first minute"),
        pytest.param(NOON + MINUTE, 30, id="lies inside"),
        pytest.param(NOON - HOUR, 180, id="lies around"),
    ],
)
@pytest.mark.parametrize("party", ["instructor", "student"])
def test_an_overlapping_insert_is_refused(party: str, start: datetime, minutes: int) -> None:
    with db.transaction() as session:
        lesson = a_lesson(session, starts_at=NOON)
        student = lesson.student if party == "student" else a_student(session)
        instructor = lesson.instructor if party == "instructor" else an_instructor(session)
        service = a_service(session, instructor=instructor, minutes=minutes)
        with pytest.raises(IntegrityError, match=f"bookings_{party}_overlap"):
            a_lesson(session, starts_at=start, student=student, service=service)
        session.rollback()


@pytest.mark.parametrize("status", OTHERS_THAN_CANCELLED)
def test_every_status_but_cancelled_takes_the_time(status: BookingStatus) -> None:
    with db.transaction() as session:
        lesson = a_lesson(session, starts_at=NOON, status=status)
        with pytest.raises(IntegrityError, match="overlap"):
            a_lesson(session, starts_at=NOON, student=lesson.student)
        session.rollback()


def test_a_cancelled_lesson_frees_the_time() -> None:
    with db.transaction() as session:
        cancelled = a_lesson(session, starts_at=NOON, status=BookingStatus.CANCELLED)
        a_lesson(session, starts_at=NOON, student=cancelled.student, service=cancelled.service)


def _uncancel(lesson: Booking, _other: Booking) -> None:
    lesson.status = BookingStatus.CONFIRMED


def _begin_earlier(lesson: Booking, other: Booking) -> None:
    lesson.starts_at = other.ends_at - MINUTE


def _end_later(lesson: Booking, other: Booking) -> None:
    lesson.ends_at = other.starts_at + MINUTE


def _take_over_instructor(lesson: Booking, other: Booking) -> None:
    lesson.instructor_id = other.instructor_id


def _take_over_student(lesson: Booking, other: Booking) -> None:
    lesson.student_id = other.student_id


@pytest.mark.parametrize(
    ("change", "start", "cancelled", "same_sides"),
    [
        pytest.param(_uncancel, NOON, True, True, id="status"),
        pytest.param(_begin_earlier, NOON + 2 * HOUR, False, True, id="starts_at"),
        pytest.param(_end_later, NOON - 2 * HOUR, False, True, id="ends_at"),
        pytest.param(_take_over_instructor, NOON, False, False, id="instructor_id"),
        pytest.param(_take_over_student, NOON, False, False, id="student_id"),
    ],
)
def test_an_update_into_an_overlap_is_refused(
    change: Callable[[Booking, Booking], None], start: datetime, cancelled: bool, same_sides: bool
) -> None:
    with db.transaction() as session:
        other = a_lesson(session, starts_at=NOON)
        lesson = a_lesson(
            session,
            starts_at=start,
            status=BookingStatus.CANCELLED if cancelled else BookingStatus.CONFIRMED,
            student=other.student if same_sides else None,
            service=other.service if same_sides else None,
        )
        change(lesson, other)
        with pytest.raises(IntegrityError, match="overlap"):
            session.flush()
        session.rollback()


def test_a_lesson_may_be_moved_within_its_own_time() -> None:
    with db.transaction() as session:
        lesson = a_lesson(session, starts_at=NOON)
        lesson.starts_at, lesson.ends_at = NOON + MINUTE, NOON + HOUR + MINUTE
        session.flush()
        lesson.status = BookingStatus.COMPLETED


def test_a_cancelled_lesson_cannot_come_back_once_its_time_is_taken() -> None:
    with db.transaction() as session:
        first = a_lesson(session, starts_at=NOON)
        first.status = BookingStatus.CANCELLED
        session.flush()
        a_lesson(session, starts_at=NOON, student=first.student)
        first.status = BookingStatus.CONFIRMED
        with pytest.raises(IntegrityError, match="bookings_student_overlap"):
            session.flush()
        session.rollback()


def test_an_end_before_the_start_is_refused() -> None:
    with db.transaction() as session:
        lesson = a_lesson(session, starts_at=NOON)
        lesson.ends_at = lesson.starts_at
        with pytest.raises(IntegrityError, match="ends_after_start"):
            session.flush()
        session.rollback()


def test_a_user_with_lessons_cannot_be_deleted() -> None:
    with db.transaction() as session:
        lesson = a_lesson(session, starts_at=NOON)
        with pytest.raises(IntegrityError, match=r"(?i)foreign key"):
            session.execute(delete(User).where(User.id == lesson.student_id))
        session.rollback()


def refusal(error: DBAPIError) -> str:
    """Of two that overlap each may wait for the other on PostgreSQL; then one is ended."""
    if isinstance(error, IntegrityError) or isinstance(error.orig, DeadlockDetected):
        return "refused"
    raise error


def test_of_many_that_book_the_same_time_at_once_one_wins(database: Engine) -> None:
    writers = 8
    with db.transaction() as session:
        service = a_service(session)
        students = [a_student(session) for _ in range(writers)]
    at_once = Barrier(writers)

    def book(student: User) -> str:
        at_once.wait()
        try:
            with db.transaction() as session:
                a_lesson(session, starts_at=NOON, student=student, service=service)
        except DBAPIError as error:
            return refusal(error)
        return "booked"

    with ThreadPoolExecutor(writers) as threads:
        outcomes = Counter(threads.map(book, students))
    assert outcomes == {"booked": 1, "refused": writers - 1}
    with Session(database) as session:
        assert len(session.scalars(select(Booking)).all()) == 1


def test_of_two_that_bring_back_colliding_lessons_at_once_one_wins(database: Engine) -> None:
    with db.transaction() as session:
        first = a_lesson(session, starts_at=NOON, status=BookingStatus.CANCELLED)
        second = a_lesson(
            session, starts_at=NOON, student=first.student, status=BookingStatus.CANCELLED
        )
    at_once = Barrier(2)

    def bring_back(lesson_id: int) -> str:
        at_once.wait()
        try:
            with db.transaction() as session:
                session.get_one(Booking, lesson_id).status = BookingStatus.CONFIRMED
        except DBAPIError as error:
            return refusal(error)
        return "booked"

    with ThreadPoolExecutor(2) as threads:
        outcomes = Counter(threads.map(bring_back, [first.id, second.id]))
    assert outcomes == {"booked": 1, "refused": 1}


def test_a_service_has_a_length_and_no_negative_price() -> None:
    with db.transaction() as session:
        instructor = User(role=Role.INSTRUCTOR, email="i@x.example", name="I", time_zone="UTC")
        session.add(instructor)
        session.flush()
        make = partial(Service, instructor_id=instructor.id, name="Guitar")
        for wrong in (make(minutes=0, price_cents=1), make(minutes=1, price_cents=-1)):
            with pytest.raises(IntegrityError, match=r"(?i)check"), session.begin_nested():
                session.add(wrong)
                session.flush()
