from datetime import timedelta

import pytest
from sqlalchemy.orm import Session

from app.models import BookingStatus, EmailKind, EmailState
from app.services import email
from app.services.email import DELIVER
from app.services.errors import MissingRowError
from tests.builders import NOON, a_lesson, a_mail, all_mails, planned

TOMORROW = NOON + timedelta(days=1)


def test_a_confirmation_goes_to_both_sides_in_one_delivery(session: Session) -> None:
    lesson = a_lesson(session, starts_at=TOMORROW)
    email_ids = email.queue_confirmation(session, lesson.id, now=NOON)
    mails = all_mails(session)
    assert [mail.id for mail in mails] == email_ids
    assert {mail.recipient_id for mail in mails} == {lesson.student_id, lesson.instructor_id}
    assert {(mail.kind, mail.state) for mail in mails} == {
        (EmailKind.BOOKING_CONFIRMATION, EmailState.QUEUED)
    }
    assert planned(session) == [(DELIVER, [email_ids])]


def test_a_cancellation_goes_to_both_sides(session: Session) -> None:
    lesson = a_lesson(session, starts_at=TOMORROW, status=BookingStatus.CANCELLED)
    email_ids = email.queue_cancellation(session, lesson.id, now=NOON)
    assert {mail.kind for mail in all_mails(session)} == {EmailKind.BOOKING_CANCELLATION}
    assert planned(session) == [(DELIVER, [email_ids])]


def test_a_no_show_notice_goes_to_both_sides(session: Session) -> None:
    lesson = a_lesson(session, starts_at=NOON, status=BookingStatus.NO_SHOW)
    email_ids = email.queue_no_show_notice(session, lesson.id, now=TOMORROW)
    mails = all_mails(session)
    assert {mail.recipient_id for mail in mails} == {lesson.student_id, lesson.instructor_id}
    assert {mail.kind for mail in mails} == {EmailKind.NO_SHOW}
    assert planned(session) == [(DELIVER, [email_ids])]


def test_one_side_that_wants_no_mail_does_not_keep_the_other_from_its_own(
    session: Session,
) -> None:
    lesson = a_lesson(session, starts_at=TOMORROW)
    lesson.student.wants_booking_mails = False
    session.flush()
    email.queue_confirmation(session, lesson.id, now=NOON)
    assert [mail.recipient_id for mail in all_mails(session)] == [lesson.instructor_id]


def test_a_mail_that_was_planned_before_is_not_planned_again(session: Session) -> None:
    lesson = a_lesson(session, starts_at=TOMORROW)
    first = a_mail(session, about=lesson, state=EmailState.SENT)
    (new,) = email.queue_confirmation(session, lesson.id, now=NOON)
    assert email.queue_confirmation(session, lesson.id, now=NOON) == []
    assert {mail.id for mail in all_mails(session)} == {first.id, new}
    assert planned(session) == [(DELIVER, [[new]])]


def test_what_is_pointless_by_now_is_not_planned(session: Session) -> None:
    cancelled = a_lesson(session, starts_at=TOMORROW, status=BookingStatus.CANCELLED)
    confirmed = a_lesson(session, starts_at=TOMORROW)
    assert email.queue_confirmation(session, cancelled.id, now=NOON) == []
    assert email.queue_cancellation(session, confirmed.id, now=NOON) == []
    assert email.queue_no_show_notice(session, confirmed.id, now=NOON) == []
    assert (all_mails(session), planned(session)) == ([], [])


def test_an_unknown_booking_is_named(session: Session) -> None:
    with pytest.raises(MissingRowError, match="booking 999"):
        email.queue_confirmation(session, 999, now=NOON)


def test_many_mails_are_delivered_in_chunks(session: Session) -> None:
    assert email.enqueue_deliveries(session, list(range(250)), chunk=100) == 3
    assert sorted(args for _, args in planned(session)) == [
        [list(range(100))],
        [list(range(100, 200))],
        [list(range(200, 250))],
    ]
