from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from app import db, outbox
from app.domain.availability import WeeklyWindow
from app.domain.bookings import (
    BookingRefusedError,
    DoubleBookedError,
    LessonBegunError,
    OutsideAvailabilityError,
    OwnLessonError,
    TooSoonError,
)
from app.models import (
    Booking,
    BookingStatus,
    EmailKind,
    EmailState,
    NotificationKind,
    OutboxEntry,
    OutboxState,
    Service,
    StaleAvailability,
)
from app.services import bookings, email
from app.services.bookings import SEND_CANCELLATION, SEND_CONFIRMATION
from app.services.errors import MissingRowError
from app.services.notifications import NOTIFY_BOOKING, notify_booking
from tests.builders import (
    NOON,
    a_lesson,
    a_mail,
    a_service,
    a_student,
    all_mails,
    all_notifications,
    an_instructor,
    planned,
)

TOMORROW = NOON + timedelta(days=1)
HOUR = timedelta(hours=1)


def booked(session: Session, starts_at: datetime = TOMORROW) -> Booking:
    return bookings.book(
        session,
        student_id=a_student(session).id,
        service_id=a_service(session).id,
        starts_at=starts_at,
        now=NOON,
    )


def book_with(
    session: Session, service: Service, *, starts_at: datetime = TOMORROW, now: datetime = NOON
) -> Booking:
    return bookings.book(
        session,
        student_id=a_student(session).id,
        service_id=service.id,
        starts_at=starts_at,
        now=now,
    )


def changes_of(session: Session, instructor_id: int) -> int:
    return session.scalars(
        select(StaleAvailability.changes).where(StaleAvailability.instructor_id == instructor_id)
    ).one()


def test_a_booked_lesson_waits_to_be_confirmed_and_nobody_is_written_to(session: Session) -> None:
    service = a_service(session, minutes=45, price_cents=3_750)
    lesson = bookings.book(
        session,
        student_id=a_student(session).id,
        service_id=service.id,
        starts_at=TOMORROW,
        now=NOON,
    )
    assert lesson.status is BookingStatus.PENDING
    assert lesson.instructor_id == service.instructor_id
    assert lesson.ends_at - lesson.starts_at == timedelta(minutes=45)
    assert (lesson.price_cents, lesson.created_at) == (3_750, NOON)
    assert planned(session) == []


def test_a_lesson_keeps_the_price_at_which_it_was_booked(session: Session) -> None:
    lesson = booked(session)
    agreed = lesson.price_cents
    lesson.service.price_cents += 1_000
    session.flush()
    session.expire(lesson)
    assert lesson.price_cents == agreed


def test_a_start_in_the_students_zone_is_the_same_instant(session: Session) -> None:
    local = TOMORROW.astimezone(ZoneInfo("Asia/Kathmandu"))
    lesson = booked(session, local)
    session.flush()
    session.expire(lesson)
    assert lesson.starts_at == TOMORROW


def test_the_rules_are_asked(session: Session) -> None:
    with pytest.raises(TooSoonError):
        booked(session, NOON)


@pytest.mark.parametrize(
    ("starts_minute", "ends_minute", "booked"),
    [
        pytest.param(12 * 60, 13 * 60, True, id="just fits"),
        pytest.param(12 * 60 + 1, 14 * 60, False, id="begins before the window"),
        pytest.param(11 * 60, 13 * 60 - 1, False, id="ends after the window"),
    ],
)
def test_a_lesson_is_booked_inside_the_instructors_windows_only(
    session: Session, starts_minute: int, ends_minute: int, booked: bool
) -> None:
    window = WeeklyWindow(TOMORROW.weekday(), starts_minute, ends_minute)
    instructor = an_instructor(session, time_zone="UTC", windows=[window])
    service = a_service(session, instructor=instructor, minutes=60)
    try:
        book_with(session, service)
    except OutsideAvailabilityError:
        assert not booked
    else:
        assert booked


def test_an_instructor_without_any_window_cannot_be_booked(session: Session) -> None:
    service = a_service(session, instructor=an_instructor(session, windows=[]))
    with pytest.raises(OutsideAvailabilityError, match="does not teach at that time"):
        book_with(session, service)


def test_what_is_shown_as_free_can_be_booked_on_the_day_the_clocks_are_put_back(
    session: Session,
) -> None:
    eve = datetime(2026, 10, 31, 12, tzinfo=UTC)
    window = WeeklyWindow(6, 60, 120)
    instructor = an_instructor(session, time_zone="US/Eastern", windows=[window])
    service = a_service(session, instructor=instructor, minutes=60)
    for starts_at in (datetime(2026, 11, 1, hour, tzinfo=UTC) for hour in (5, 6)):
        book_with(session, service, starts_at=starts_at, now=eve)
    with pytest.raises(OutsideAvailabilityError):
        book_with(session, service, starts_at=datetime(2026, 11, 1, 7, tzinfo=UTC), now=eve)


def test_booking_and_cancelling_make_the_instructors_slots_stale_and_refusals_do_not(
    session: Session,
) -> None:
    lesson = booked(session)
    assert changes_of(session, lesson.instructor_id) == 1
    bookings.confirm(session, lesson.id, now=NOON)
    with pytest.raises(DoubleBookedError):
        book_with(session, lesson.service)
    assert changes_of(session, lesson.instructor_id) == 1
    for _ in range(2):
        bookings.cancel(session, lesson.id, now=NOON)
    assert changes_of(session, lesson.instructor_id) == 2


def test_an_instructor_does_not_book_their_own_lesson(session: Session) -> None:
    service = a_service(session)
    with pytest.raises(OwnLessonError):
        bookings.book(
            session,
            student_id=service.instructor_id,
            service_id=service.id,
            starts_at=TOMORROW,
            now=NOON,
        )


def test_an_unknown_service_or_student_is_named(session: Session) -> None:
    student, service = a_student(session), a_service(session)
    with pytest.raises(MissingRowError, match="service 999"):
        bookings.book(session, student_id=student.id, service_id=999, starts_at=TOMORROW, now=NOON)
    with pytest.raises(MissingRowError, match="user 999"):
        bookings.book(session, student_id=999, service_id=service.id, starts_at=TOMORROW, now=NOON)


@pytest.mark.parametrize("shift", [-HOUR / 2, timedelta(0), HOUR / 2])
def test_an_instructor_is_not_double_booked_and_the_transaction_goes_on(
    session: Session, shift: timedelta
) -> None:
    service = a_service(session, minutes=60)
    first = a_lesson(session, starts_at=TOMORROW, service=service)
    with pytest.raises(DoubleBookedError, match="instructor has another lesson"):
        bookings.book(
            session,
            student_id=a_student(session).id,
            service_id=service.id,
            starts_at=TOMORROW + shift,
            now=NOON,
        )
    later = bookings.book(
        session,
        student_id=first.student_id,
        service_id=service.id,
        starts_at=TOMORROW + HOUR,
        now=NOON,
    )
    assert session.scalar(select(func.count(Booking.id))) == 2
    assert later.id is not None


def test_a_student_is_not_double_booked(session: Session) -> None:
    student = a_student(session)
    a_lesson(session, starts_at=TOMORROW, student=student)
    with pytest.raises(DoubleBookedError, match="student has another lesson"):
        bookings.book(
            session,
            student_id=student.id,
            service_id=a_service(session).id,
            starts_at=TOMORROW,
            now=NOON,
        )


def test_a_cancelled_lesson_gives_its_time_free(session: Session) -> None:
    lesson = booked(session)
    bookings.cancel(session, lesson.id, now=NOON)
    again = bookings.book(
        session,
        student_id=lesson.student_id,
        service_id=lesson.service_id,
        starts_at=TOMORROW,
        now=NOON,
    )
    assert again.status is BookingStatus.PENDING


def test_of_two_students_who_book_one_hour_at_once_one_gets_it(database: Engine) -> None:
    with db.transaction() as session:
        service_id = a_service(session).id
        students = [a_student(session).id for _ in range(8)]
    together = Barrier(len(students))

    def try_to_book(student_id: int) -> str:
        together.wait()
        try:
            with db.transaction() as session:
                bookings.book(
                    session,
                    student_id=student_id,
                    service_id=service_id,
                    starts_at=TOMORROW,
                    now=NOON,
                )
        except DoubleBookedError:
            return "refused"
        return "booked"

    with ThreadPoolExecutor(len(students)) as people:
        answers = sorted(people.map(try_to_book, students))
    assert answers == ["booked"] + ["refused"] * 7


def test_confirming_tells_both_sides_by_mail_and_in_the_app(session: Session) -> None:
    lesson = booked(session)
    bookings.confirm(session, lesson.id, now=NOON + HOUR)
    assert (lesson.status, lesson.confirmed_at) == (BookingStatus.CONFIRMED, NOON + HOUR)
    assert planned(session) == [
        (SEND_CONFIRMATION, [lesson.id]),
        (NOTIFY_BOOKING, [lesson.id, "booking_confirmed"]),
    ]


def test_what_the_app_tells_is_planned_once_by_whomever(session: Session) -> None:
    lesson = booked(session)
    bookings.confirm(session, lesson.id, now=NOON)
    before = planned(session)
    key = f"notify:booking_confirmed:{lesson.id}"
    outbox.enqueue(session, NOTIFY_BOOKING, lesson.id, "booking_confirmed", key=key)
    assert planned(session) == before


def test_confirming_twice_changes_nothing(session: Session) -> None:
    lesson = booked(session)
    bookings.confirm(session, lesson.id, now=NOON)
    before = planned(session)
    bookings.confirm(session, lesson.id, now=TOMORROW + HOUR)
    assert lesson.confirmed_at == NOON
    assert planned(session) == before


def test_a_cancelled_lesson_is_not_confirmed(session: Session) -> None:
    lesson = booked(session)
    bookings.cancel(session, lesson.id, now=NOON)
    with pytest.raises(BookingRefusedError, match="cancelled cannot be confirmed"):
        bookings.confirm(session, lesson.id, now=NOON)


def test_a_lesson_and_its_confirmation_are_rolled_back_together(database: Engine) -> None:
    with pytest.raises(ZeroDivisionError), db.transaction() as session:
        lesson = booked(session)
        bookings.confirm(session, lesson.id, now=NOON)
        raise ZeroDivisionError
    with db.reading() as session:
        assert session.scalar(select(func.count(Booking.id))) == 0
        assert planned(session) == []


def test_many_who_confirm_at_once_plan_one_confirmation(database: Engine) -> None:
    with db.transaction() as session:
        booking_id = booked(session).id
    together = Barrier(4)

    def confirm(_: int) -> None:
        together.wait()
        with db.transaction() as session:
            bookings.confirm(session, booking_id, now=NOON)

    with ThreadPoolExecutor(4) as people:
        list(people.map(confirm, range(4)))
    with db.reading() as session:
        assert planned(session) == [
            (SEND_CONFIRMATION, [booking_id]),
            (NOTIFY_BOOKING, [booking_id, "booking_confirmed"]),
        ]


def test_cancelling_a_pending_lesson_tells_both_sides_in_the_app_alone(session: Session) -> None:
    lesson = booked(session)
    bookings.cancel(session, lesson.id, now=NOON)
    assert (lesson.status, lesson.cancelled_at) == (BookingStatus.CANCELLED, NOON)
    assert planned(session) == [(NOTIFY_BOOKING, [lesson.id, "booking_cancelled"])]


def test_cancelling_a_confirmed_lesson_plans_a_notice_in_place_of_the_confirmation(
    session: Session,
) -> None:
    lesson = booked(session)
    bookings.confirm(session, lesson.id, now=NOON)
    bookings.cancel(session, lesson.id, now=NOON)
    assert [args for task, args in planned(session) if task == SEND_CANCELLATION] == [[lesson.id]]
    (confirmation,) = session.scalars(
        select(OutboxEntry).where(OutboxEntry.task == SEND_CONFIRMATION)
    )
    assert confirmation.state is OutboxState.CANCELLED


def test_cancelling_calls_back_the_mails_that_wait_and_no_others(session: Session) -> None:
    lesson, other = booked(session), booked(session)
    bookings.confirm(session, lesson.id, now=NOON)
    teacher = lesson.instructor
    waits = a_mail(session, about=lesson)
    reminder = a_mail(session, about=lesson, kind=EmailKind.REMINDER_24H)
    sent = a_mail(session, about=lesson, to=teacher, state=EmailState.SENT)
    elsewhere = a_mail(session, about=other)
    bookings.cancel(session, lesson.id, now=NOON)
    states = {mail.id: mail.state for mail in all_mails(session)}
    assert states == {
        waits.id: EmailState.CANCELLED,
        reminder.id: EmailState.CANCELLED,
        sent.id: EmailState.SENT,
        elsewhere.id: EmailState.QUEUED,
    }


def test_cancelling_calls_back_no_mail_that_is_about_something_else(session: Session) -> None:
    lesson = booked(session)
    bookings.confirm(session, lesson.id, now=NOON)
    others = {
        EmailKind.PASSWORD_RESET,
        EmailKind.DIGEST,
        EmailKind.WEEKLY_REPORT,
    }
    for kind in others:
        # Of other tables, with the number that the booking happens to have.
        a_mail(session, about=lesson, kind=kind)
    bookings.cancel(session, lesson.id, now=NOON)
    assert {mail.kind: mail.state for mail in all_mails(session)} == dict.fromkeys(
        others, EmailState.QUEUED
    )


def test_who_hears_of_a_confirmation_late_hears_of_the_cancellation_alone(
    session: Session,
) -> None:
    lesson = booked(session)
    bookings.confirm(session, lesson.id, now=NOON)
    bookings.cancel(session, lesson.id, now=NOON)
    for task, args in planned(session):
        if task == NOTIFY_BOOKING:
            notify_booking(session, args[0], NotificationKind(args[1]), now=NOON)
    kinds = {told.kind for told in all_notifications(session)}
    assert kinds == {NotificationKind.BOOKING_CANCELLED}


def test_cancelling_twice_changes_nothing(session: Session) -> None:
    lesson = booked(session)
    bookings.confirm(session, lesson.id, now=NOON)
    bookings.cancel(session, lesson.id, now=NOON)
    email.queue_cancellation(session, lesson.id, now=NOON)
    before = planned(session)
    bookings.cancel(session, lesson.id, now=TOMORROW + HOUR)
    assert lesson.cancelled_at == NOON
    assert planned(session) == before
    assert {mail.state for mail in all_mails(session)} == {EmailState.QUEUED}


def test_a_confirmed_lesson_that_has_begun_is_not_cancelled(session: Session) -> None:
    lesson = a_lesson(session, starts_at=NOON)
    with pytest.raises(LessonBegunError):
        bookings.cancel(session, lesson.id, now=NOON)


def test_an_unknown_booking_is_named(session: Session) -> None:
    for act in (bookings.confirm, bookings.cancel):
        with pytest.raises(MissingRowError, match="booking 999"):
            act(session, 999, now=NOON)
