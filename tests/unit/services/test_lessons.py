from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import datetime, timedelta
from itertools import product
from random import Random
from threading import Barrier

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from app import db, outbox
from app.domain.bookings import BookingRefusedError
from app.domain.no_shows import (
    CHECK_IN_OPENS,
    GRACE,
    CheckInClosedError,
    CheckInTooEarlyError,
    NotYourLessonError,
    outcome,
)
from app.domain.reminders import LEADS
from app.models import (
    Booking,
    BookingStatus,
    EmailKind,
    EmailState,
    NotificationKind,
    OutboxEntry,
    StaleAvailability,
)
from app.services import email_delivery, lessons
from app.services.errors import MissingRowError
from app.services.lessons import SEND_NO_SHOW_NOTICE, SettledLessons
from app.settings import Settings
from tests.builders import (
    NOON,
    a_lesson,
    a_mail,
    a_service,
    a_student,
    all_mails,
    all_notifications,
    many_lessons,
    planned,
)
from tests.mailers import FakeMailer

TICK = timedelta(microseconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
ENDS_AT = NOON + HOUR
CHECK_IN_CLOSES = ENDS_AT + GRACE


def now_in(session: Session, booking_id: int) -> Booking:
    return session.get_one(Booking, booking_id, populate_existing=True)


def visited(session: Session) -> Booking:
    """A lesson at noon to which both sides came."""
    return a_lesson(
        session, starts_at=NOON, student_checked_in_at=NOON, instructor_checked_in_at=NOON
    )


def test_each_side_checks_in_for_itself(session: Session) -> None:
    lesson = a_lesson(session, starts_at=NOON)
    lessons.check_in(session, lesson.id, user_id=lesson.student_id, now=NOON - MINUTE)
    assert (lesson.student_checked_in_at, lesson.instructor_checked_in_at) == (NOON - MINUTE, None)
    lessons.check_in(session, lesson.id, user_id=lesson.instructor_id, now=NOON)
    assert (lesson.student_checked_in_at, lesson.instructor_checked_in_at) == (NOON - MINUTE, NOON)


def test_checking_in_again_changes_nothing_even_when_it_is_closed(session: Session) -> None:
    lesson = a_lesson(session, starts_at=NOON)
    for now in (NOON, NOON + MINUTE, CHECK_IN_CLOSES):
        lessons.check_in(session, lesson.id, user_id=lesson.student_id, now=now)
    assert now_in(session, lesson.id).student_checked_in_at == NOON


@pytest.mark.parametrize(
    ("now", "refusal"),
    [
        (NOON - CHECK_IN_OPENS - TICK, CheckInTooEarlyError),
        (CHECK_IN_CLOSES, CheckInClosedError),
    ],
)
def test_a_check_in_that_is_too_early_or_too_late_leaves_no_trace(
    session: Session, now: datetime, refusal: type[BookingRefusedError]
) -> None:
    lesson = a_lesson(session, starts_at=NOON)
    with pytest.raises(refusal):
        lessons.check_in(session, lesson.id, user_id=lesson.student_id, now=now)
    assert now_in(session, lesson.id).student_checked_in_at is None


def test_nobody_checks_in_to_somebody_elses_lesson(session: Session) -> None:
    lesson = a_lesson(session, starts_at=NOON)
    with pytest.raises(NotYourLessonError, match="two sides"):
        lessons.check_in(session, lesson.id, user_id=a_student(session).id, now=NOON)


def test_who_comes_after_the_lesson_was_marked_is_refused(session: Session) -> None:
    lesson = a_lesson(session, starts_at=NOON)
    lessons.settle(session, now=CHECK_IN_CLOSES)
    with pytest.raises(CheckInClosedError, match="marked as a no-show"):
        lessons.check_in(session, lesson.id, user_id=lesson.student_id, now=CHECK_IN_CLOSES)


def test_an_unknown_lesson_is_named(session: Session) -> None:
    with pytest.raises(MissingRowError, match="booking 999"):
        lessons.check_in(session, 999, user_id=1, now=NOON)


def test_both_sides_of_a_no_show_are_told_by_mail_and_in_the_app(session: Session) -> None:
    lesson = a_lesson(session, starts_at=NOON, student_checked_in_at=NOON)
    assert lessons.mark_no_shows(session, now=CHECK_IN_CLOSES) == 1
    marked = now_in(session, lesson.id)
    assert (marked.status, marked.no_show_at) == (BookingStatus.NO_SHOW, CHECK_IN_CLOSES)
    assert planned(session) == [(SEND_NO_SHOW_NOTICE, [lesson.id])]
    assert {told.user_id: told.title for told in all_notifications(session)} == {
        lesson.student_id: "Your instructor did not come",
        lesson.instructor_id: "You did not check in to your lesson",
    }


def test_a_no_shows_notice_is_planned_once_by_whomever(session: Session) -> None:
    lesson = a_lesson(session, starts_at=NOON)
    lessons.mark_no_shows(session, now=CHECK_IN_CLOSES)
    again = outbox.enqueue(session, SEND_NO_SHOW_NOTICE, lesson.id, key=f"no-show:{lesson.id}")
    assert [args for _, args in planned(session)] == [[lesson.id]]
    assert again == session.scalars(select(OutboxEntry.id)).one()


def test_a_lesson_to_which_both_came_is_completed_and_they_are_told_in_the_app(
    session: Session,
) -> None:
    lesson = visited(session)
    assert lessons.complete_finished(session, now=ENDS_AT) == 1
    completed = now_in(session, lesson.id)
    assert (completed.status, completed.completed_at) == (BookingStatus.COMPLETED, ENDS_AT)
    assert planned(session) == []
    assert {(told.user_id, told.kind) for told in all_notifications(session)} == {
        (lesson.student_id, NotificationKind.BOOKING_COMPLETED),
        (lesson.instructor_id, NotificationKind.BOOKING_COMPLETED),
    }


def test_a_pending_lesson_expires_and_both_sides_are_told_in_the_app_and_by_no_mail(
    session: Session,
) -> None:
    lesson = a_lesson(session, starts_at=NOON, status=BookingStatus.PENDING)
    assert lessons.expire_pending(session, now=NOON) == 1
    expired = now_in(session, lesson.id)
    assert (expired.status, expired.cancelled_at) == (BookingStatus.CANCELLED, NOON)
    assert planned(session) == []
    assert {(told.user_id, told.kind) for told in all_notifications(session)} == {
        (lesson.student_id, NotificationKind.BOOKING_EXPIRED),
        (lesson.instructor_id, NotificationKind.BOOKING_EXPIRED),
    }


def test_an_expired_lesson_gives_the_rest_of_its_time_free(session: Session) -> None:
    service = a_service(session)
    for start in (NOON, NOON + HOUR):
        a_lesson(session, starts_at=start, status=BookingStatus.PENDING, service=service)
    lessons.expire_pending(session, now=NOON + HOUR)
    assert session.scalars(select(StaleAvailability.instructor_id)).all() == [service.instructor_id]


def test_settling_again_changes_nothing_and_tells_nobody_again(session: Session) -> None:
    a_lesson(session, starts_at=NOON)
    visited(session)
    a_lesson(session, starts_at=NOON, status=BookingStatus.PENDING)
    settled = lessons.settle(session, now=CHECK_IN_CLOSES)
    before = (planned(session), len(all_notifications(session)))
    again = lessons.settle(session, now=CHECK_IN_CLOSES + HOUR)
    assert settled == SettledLessons(no_shows=1, completed=1, expired=1)
    assert again == SettledLessons(no_shows=0, completed=0, expired=0)
    assert (planned(session), len(all_notifications(session))) == before


def test_a_reminder_that_waits_is_not_sent_for_a_lesson_that_is_settled(database: Engine) -> None:
    before = NOON - LEADS[EmailKind.REMINDER_1H]
    with db.transaction() as session:
        pending = a_lesson(session, starts_at=NOON, status=BookingStatus.PENDING)
        confirmed = a_lesson(session, starts_at=NOON)
        ids = [a_mail(session, about=pending).id]
        ids += [
            a_mail(session, about=confirmed, kind=kind).id
            for kind in (EmailKind.REMINDER_24H, EmailKind.REMINDER_1H)
        ]
        lessons.settle(session, now=CHECK_IN_CLOSES)
    mailer = FakeMailer()
    # A worker whose clock is behind: what counts is what has become of the lesson.
    email_delivery.deliver(ids, mailer=mailer, settings=Settings(), clock=lambda: before)
    assert mailer.received == []
    with db.reading() as session:
        assert {mail.state for mail in all_mails(session)} == {EmailState.CANCELLED}


def test_the_statements_find_what_the_rule_says(session: Session) -> None:
    steps = (-TICK, timedelta(0), TICK)
    edges = [NOON + edge + step for edge in (timedelta(0), -HOUR, -HOUR - GRACE) for step in steps]
    rng = Random(20260302)
    drawn = [NOON + timedelta(hours=rng.uniform(-4, 4)) for _ in range(10)]
    check_ins = (None, NOON - 2 * HOUR)
    for starts_at, status, student, instructor in product(
        edges + drawn, BookingStatus, check_ins, check_ins
    ):
        a_lesson(
            session,
            starts_at=starts_at,
            status=status,
            student_checked_in_at=student,
            instructor_checked_in_at=instructor,
        )
    before = {lesson.id: lesson for lesson in session.scalars(select(Booking))}
    expected = {
        lesson.id: outcome(
            lesson.status,
            starts_at=lesson.starts_at,
            ends_at=lesson.ends_at,
            student_checked_in_at=lesson.student_checked_in_at,
            instructor_checked_in_at=lesson.instructor_checked_in_at,
            now=NOON,
        )
        or lesson.status
        for lesson in before.values()
    }
    settled = lessons.settle(session, now=NOON)
    found = {row.id: row.status for row in session.execute(select(Booking.id, Booking.status))}
    assert found == expected
    assert min(settled.no_shows, settled.completed, settled.expired) > 0


@pytest.mark.parametrize(
    ("act", "task"),
    [
        (lessons.mark_no_shows, lessons.MARK_NO_SHOWS),
        (lessons.complete_finished, lessons.COMPLETE_FINISHED),
        (lessons.expire_pending, lessons.EXPIRE_PENDING),
    ],
)
def test_a_backlog_is_settled_in_batches_that_plan_each_other(
    session: Session, act: Callable[..., int], task: str
) -> None:
    batch, over = 10, 3
    ids = many_lessons(session, 2 * batch + over, starts_at=NOON)
    for lesson in session.scalars(select(Booking)):
        if task == lessons.COMPLETE_FINISHED:
            lesson.student_checked_in_at = lesson.instructor_checked_in_at = NOON
        elif task == lessons.EXPIRE_PENDING:
            lesson.status = BookingStatus.PENDING
    session.flush()
    settled = []
    for planned_before in range(3):
        assert planned(session).count((task, [])) == planned_before
        settled.append(act(session, now=CHECK_IN_CLOSES, batch=batch))
    assert settled == [batch, batch, over]
    assert planned(session).count((task, [])) == 2
    assert Counter(told.booking_id for told in all_notifications(session)) == dict.fromkeys(ids, 2)


def test_who_checks_in_while_the_lesson_is_being_marked_waits_and_is_refused(
    database: Engine,
) -> None:
    with db.transaction() as session:
        lesson = a_lesson(session, starts_at=NOON)

    def check_in() -> None:
        with db.transaction() as session:
            lessons.check_in(
                session, lesson.id, user_id=lesson.student_id, now=CHECK_IN_CLOSES - TICK
            )

    with ThreadPoolExecutor(1) as person:
        with db.transaction() as session:
            lessons.mark_no_shows(session, now=CHECK_IN_CLOSES)
            late = person.submit(check_in)
            # Long enough for it to read what is not committed yet, if it did not wait.
            assert wait([late], timeout=0.3).not_done
        with pytest.raises(CheckInClosedError):
            late.result()
    with db.reading() as session:
        assert now_in(session, lesson.id).student_checked_in_at is None


def test_runs_and_check_ins_at_once_settle_each_lesson_once_and_lose_no_check_in(
    database: Engine,
) -> None:
    with db.transaction() as session:
        ids = many_lessons(session, 40, starts_at=NOON)
        sides = [
            (each.id, each.student_id, each.instructor_id)
            for each in session.scalars(select(Booking).order_by(Booking.id))
        ]
    together = Barrier(4)
    last_moment = CHECK_IN_CLOSES - TICK

    def settle(_: int) -> int:
        together.wait()
        marked = 0
        for _again in range(10):
            with db.transaction() as session:
                marked += lessons.mark_no_shows(session, now=CHECK_IN_CLOSES, batch=7)
        return marked

    def check_in(_: int) -> int:
        together.wait()
        taken = 0
        for lesson_id, *both in sides[::-1]:
            try:
                with db.transaction() as session:
                    for side in both:
                        lessons.check_in(session, lesson_id, user_id=side, now=last_moment)
            except BookingRefusedError:
                continue
            taken += 1
        return taken

    with ThreadPoolExecutor(4) as people:
        runs = [people.submit(settle, 1), people.submit(settle, 2), people.submit(settle, 3)]
        arrivals = people.submit(check_in, 1)
    assert sum(run.result() for run in runs) + arrivals.result() == len(ids)
    with db.reading() as session:
        for lesson in session.scalars(select(Booking)):
            came = lesson.student_checked_in_at is not None
            assert came == (lesson.status is BookingStatus.CONFIRMED)
        notices = [args for task, args in planned(session) if task == SEND_NO_SHOW_NOTICE]
        assert len(notices) == len({args[0] for args in notices}) == len(ids) - arrivals.result()
