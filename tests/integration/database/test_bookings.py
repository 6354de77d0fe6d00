"""Many who book at the same time on PostgreSQL: one wins, the others are told why."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from threading import Barrier, BrokenBarrierError

import pytest
from sqlalchemy import Engine, event, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app import db
from app.domain.bookings import DoubleBookedError
from app.models import Booking, BookingStatus
from app.services import bookings
from tests.builders import NOON, a_lesson, a_service, a_student
from tests.database import on_postgresql
from tests.integration.database.waiting import wait_until_somebody_waits

pytestmark = on_postgresql

BEFORE = NOON - timedelta(days=1)
WRITERS = 6
ROUNDS = 3
A_MOMENT = 0.3  # seconds in which a thread that may go on does


def at_once(act: Callable[[int], str], count: int) -> Counter[str]:
    """What ``count`` threads with a connection each answer, which act at the same moment."""
    ready = Barrier(count)

    def wait_and_act(number: int) -> str:
        with db.reading() as session:
            session.connection()
            ready.wait()
        return act(number)

    with ThreadPoolExecutor(count) as threads:
        return Counter(threads.map(wait_and_act, range(count)))


def book(student_id: int, service_id: int) -> str:
    try:
        with db.transaction() as session:
            bookings.book(
                session, student_id=student_id, service_id=service_id, starts_at=NOON, now=BEFORE
            )
    except DoubleBookedError as refusal:
        return str(refusal)
    return "booked"


def test_of_many_students_with_one_instructor_one_wins_and_none_is_a_deadlock(
    database: Engine,
) -> None:
    for _ in range(ROUNDS):
        with db.transaction() as session:
            service = a_service(session)
            students = [a_student(session) for _ in range(WRITERS)]
        outcomes = at_once(lambda number: book(students[number].id, service.id), WRITERS)  # noqa: B023
        assert outcomes == {
            "booked": 1,
            "The instructor has another lesson at that time.": WRITERS - 1,
        }


@pytest.mark.parametrize("shared", ["student", "instructor"])
def test_who_books_somebody_waits_for_who_did_so_before_and_then_inserts(
    database: Engine, shared: str
) -> None:
    """Two that insert at once may end as a deadlock, which the tests above need luck to see."""
    with db.transaction() as session:
        students, services = (
            [make(session)] * 2 if side == shared else [make(session) for _ in range(2)]
            for side, make in (("student", a_student), ("instructor", a_service))
        )
    both_insert = Barrier(2)
    met = []

    def meet(*_: object) -> None:
        with suppress(BrokenBarrierError):
            met.append(both_insert.wait(A_MOMENT))

    event.listen(Session, "before_flush", meet)
    try:
        at_once(lambda number: book(students[number].id, services[number].id), 2)
    finally:
        event.remove(Session, "before_flush", meet)
    assert met == []


def test_of_many_lessons_of_one_student_one_wins_and_none_is_a_deadlock(database: Engine) -> None:
    for _ in range(ROUNDS):
        with db.transaction() as session:
            student = a_student(session)
            services = [a_service(session) for _ in range(WRITERS)]
        outcomes = at_once(lambda number: book(student.id, services[number].id), WRITERS)  # noqa: B023
        assert outcomes == {
            "booked": 1,
            "The student has another lesson at that time.": WRITERS - 1,
        }


def test_a_booking_does_not_hold_up_one_with_other_people(database: Engine) -> None:
    with db.transaction() as session:
        services = [a_service(session) for _ in range(2)]
        students = [a_student(session) for _ in range(2)]
    with ThreadPoolExecutor(1) as thread, db.transaction() as session:
        bookings.book(
            session,
            student_id=students[0].id,
            service_id=services[0].id,
            starts_at=NOON,
            now=BEFORE,
        )
        other = thread.submit(book, students[1].id, services[1].id)
        assert other.result(timeout=10) == "booked"


def test_a_booking_that_waits_for_one_that_is_rolled_back_wins(database: Engine) -> None:
    with db.transaction() as session:
        service, students = a_service(session), [a_student(session) for _ in range(2)]
    with ThreadPoolExecutor(1) as thread:
        with pytest.raises(KeyError), db.transaction() as session:
            bookings.book(
                session,
                student_id=students[0].id,
                service_id=service.id,
                starts_at=NOON,
                now=BEFORE,
            )
            second = thread.submit(book, students[1].id, service.id)
            wait_until_somebody_waits()
            raise KeyError
        assert second.result(timeout=10) == "booked"


def test_an_update_into_a_lesson_that_is_being_booked_waits_and_is_refused(
    database: Engine,
) -> None:
    with db.transaction() as session:
        service = a_service(session)
        cancelled = a_lesson(
            session, starts_at=NOON, service=service, status=BookingStatus.CANCELLED
        )
        student = a_student(session)

    def bring_back() -> str:
        try:
            with db.transaction() as session:
                session.get_one(Booking, cancelled.id).status = BookingStatus.CONFIRMED
        except IntegrityError as error:
            return str(error.orig)
        return "booked"

    with ThreadPoolExecutor(1) as thread:
        with db.transaction() as session:
            a_lesson(session, starts_at=NOON, service=service, student=student)
            update = thread.submit(bring_back)
            wait_until_somebody_waits()
        assert "bookings_instructor_overlap" in update.result(timeout=10)


def test_touching_lessons_may_be_booked_at_the_same_time(database: Engine) -> None:
    with db.transaction() as session:
        service = a_service(session, minutes=60)
        students = [a_student(session) for _ in range(WRITERS)]

    def book_my_hour(number: int) -> str:
        with db.transaction() as session:
            begins = NOON + number * timedelta(hours=1)
            a_lesson(session, starts_at=begins, student=students[number], service=service)
        return "booked"

    assert at_once(book_my_hour, WRITERS) == {"booked": WRITERS}
    with db.reading() as session:
        assert session.scalar(select(func.count()).select_from(Booking)) == WRITERS
