from datetime import timedelta

import pytest
from sqlalchemy.orm import Session

from app.domain.notifications import TRUE_OF
from app.models import BookingStatus, NotificationKind
from app.services import notifications
from app.services.errors import MissingRowError
from tests.builders import NOON, a_lesson, a_notification, a_student, all_notifications

CONFIRMED = NotificationKind.BOOKING_CONFIRMED
MINUTE = timedelta(minutes=1)


def create(session: Session, user_id: int, *, title: str = "Hello") -> bool:
    return notifications.create(
        session,
        user_id=user_id,
        kind=NotificationKind.BROADCAST,
        key="the same event",
        title=title,
        body="Welcome.",
        now=NOON,
    )


def test_the_same_event_tells_the_same_person_once(session: Session) -> None:
    reader = a_student(session)
    assert create(session, reader.id, title="First")
    assert not create(session, reader.id, title="Second")
    (told,) = all_notifications(session)
    assert (told.user_id, told.title, told.created_at, told.read_at) == (
        reader.id,
        "First",
        NOON,
        None,
    )


def test_both_sides_of_a_lesson_are_told_once_each_of_the_other(session: Session) -> None:
    lesson = a_lesson(session, starts_at=NOON)
    assert notifications.notify_booking(session, lesson.id, CONFIRMED, now=NOON) == 2
    assert notifications.notify_booking(session, lesson.id, CONFIRMED, now=NOON) == 0
    assert {(told.user_id, told.body, told.key) for told in all_notifications(session)} == {
        (
            lesson.student_id,
            "Guitar with Bob Instructor",
            f"booking_confirmed:{lesson.id}:{lesson.student_id}",
        ),
        (
            lesson.instructor_id,
            "Guitar with Ada Student",
            f"booking_confirmed:{lesson.id}:{lesson.instructor_id}",
        ),
    }
    assert {told.booking_id for told in all_notifications(session)} == {lesson.id}


def test_the_side_that_does_not_know_yet_is_told(session: Session) -> None:
    lesson = a_lesson(session, starts_at=NOON)
    notifications.notify_booking(session, lesson.id, CONFIRMED, now=NOON)
    session.delete(all_notifications(session)[0])
    session.flush()
    assert notifications.notify_booking(session, lesson.id, CONFIRMED, now=NOON) == 1


def test_many_lessons_are_told_of_in_one_go(session: Session) -> None:
    lessons = [a_lesson(session, starts_at=NOON) for _ in range(3)]
    ids = [lesson.id for lesson in lessons]
    assert notifications.notify_bookings(session, ids, CONFIRMED, now=NOON) == 6
    told = {(row.booking_id, row.user_id) for row in all_notifications(session)}
    assert told == {
        (lesson.id, side)
        for lesson in lessons
        for side in (lesson.student_id, lesson.instructor_id)
    }


def test_each_side_is_told_who_did_not_come(session: Session) -> None:
    lesson = a_lesson(session, starts_at=NOON, status=BookingStatus.NO_SHOW)
    lesson.student_checked_in_at = NOON
    notifications.notify_booking(session, lesson.id, NotificationKind.BOOKING_NO_SHOW, now=NOON)
    assert {told.user_id: told.title for told in all_notifications(session)} == {
        lesson.student_id: "Your instructor did not come",
        lesson.instructor_id: "You did not check in to your lesson",
    }


@pytest.mark.parametrize("kind", TRUE_OF)
@pytest.mark.parametrize("status", BookingStatus)
def test_nobody_is_told_late_what_is_no_longer_true(
    session: Session, kind: NotificationKind, status: BookingStatus
) -> None:
    lesson = a_lesson(session, starts_at=NOON, status=status)
    told = notifications.notify_booking(session, lesson.id, kind, now=NOON)
    assert told == (2 if status in TRUE_OF[kind] else 0)


def test_an_unknown_lesson_is_named(session: Session) -> None:
    with pytest.raises(MissingRowError, match="booking 999"):
        notifications.notify_booking(session, 999, CONFIRMED, now=NOON)


def test_a_kind_that_is_not_about_a_lesson_is_refused(session: Session) -> None:
    lesson = a_lesson(session, starts_at=NOON)
    with pytest.raises(ValueError, match="'broadcast' is not about a lesson"):
        notifications.notify_booking(session, lesson.id, NotificationKind.BROADCAST, now=NOON)


def test_who_reads_a_notification_again_has_read_it_when_they_first_did(session: Session) -> None:
    told = a_notification(session, user=a_student(session))
    assert notifications.mark_read(session, told.id, user_id=told.user_id, now=NOON + MINUTE)
    assert not notifications.mark_read(
        session, told.id, user_id=told.user_id, now=NOON + 2 * MINUTE
    )
    session.expire(told)
    assert told.read_at == NOON + MINUTE


def test_nobody_reads_in_somebody_elses_place(session: Session) -> None:
    told = a_notification(session, user=a_student(session))
    other = a_student(session)
    with pytest.raises(MissingRowError, match=f"notification {told.id}"):
        notifications.mark_read(session, told.id, user_id=other.id, now=NOON)
    session.expire(told)
    assert told.read_at is None


def test_who_reads_all_has_read_what_there_was_by_then_and_others_have_not(
    session: Session,
) -> None:
    reader, other = a_student(session), a_student(session)
    read = a_notification(session, user=reader, read_at=NOON)
    unread = a_notification(session, user=reader)
    later = a_notification(session, user=reader, created_at=NOON + MINUTE)
    elsewhere = a_notification(session, user=other)
    assert notifications.mark_all_read(session, reader.id, now=NOON) == 1
    session.expire_all()
    assert (read.read_at, unread.read_at, later.read_at, elsewhere.read_at) == (
        NOON,
        NOON,
        None,
        None,
    )
