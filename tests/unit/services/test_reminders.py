from datetime import datetime, timedelta
from itertools import chain
from random import Random

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.domain.reminders import LEADS, due_kind
from app.models import Booking, BookingStatus, EmailKind, EmailState
from app.services import reminders
from app.services.email import DELIVER
from tests.builders import NOON, a_lesson, a_mail, all_mails, many_lessons, planned

TICK = timedelta(microseconds=1)
IN_A_DAY = NOON + LEADS[EmailKind.REMINDER_24H]
IN_AN_HOUR = NOON + LEADS[EmailKind.REMINDER_1H]


def test_a_due_reminder_is_planned_for_both_sides(session: Session) -> None:
    lesson = a_lesson(session, starts_at=IN_A_DAY)
    summary = reminders.enqueue_due(session, now=NOON)
    mails = all_mails(session)
    assert {(mail.kind, mail.subject_id, mail.state) for mail in mails} == {
        (EmailKind.REMINDER_24H, lesson.id, EmailState.QUEUED)
    }
    assert {mail.recipient_id for mail in mails} == {lesson.student_id, lesson.instructor_id}
    assert planned(session) == [(DELIVER, [[mail.id for mail in mails]])]
    assert summary == reminders.ReminderSummary(planned=2, deliveries=1)


def test_running_again_plans_nothing_again(session: Session) -> None:
    a_lesson(session, starts_at=IN_A_DAY)
    reminders.enqueue_due(session, now=NOON)
    again = reminders.enqueue_due(session, now=NOON)
    assert again == reminders.ReminderSummary(planned=0, deliveries=0)
    assert len(planned(session)) == 1


def test_a_reminder_that_only_one_side_has_is_planned_for_the_other(session: Session) -> None:
    lesson = a_lesson(session, starts_at=IN_A_DAY)
    a_mail(session, about=lesson, kind=EmailKind.REMINDER_24H, state=EmailState.SENT)
    assert reminders.enqueue_due(session, now=NOON).planned == 1
    assert all_mails(session)[-1].recipient_id == lesson.instructor_id


def test_both_kinds_are_planned_in_one_run_each_for_its_lessons(session: Session) -> None:
    tomorrow = a_lesson(session, starts_at=IN_A_DAY)
    soon = a_lesson(session, starts_at=IN_AN_HOUR)
    reminders.enqueue_due(session, now=NOON)
    assert {(mail.kind, mail.subject_id) for mail in all_mails(session)} == {
        (EmailKind.REMINDER_24H, tomorrow.id),
        (EmailKind.REMINDER_1H, soon.id),
    }


@pytest.mark.parametrize(
    "status", [status for status in BookingStatus if status is not BookingStatus.CONFIRMED]
)
def test_only_a_confirmed_lesson_is_reminded_of(session: Session, status: BookingStatus) -> None:
    a_lesson(session, starts_at=IN_A_DAY, status=status)
    assert reminders.enqueue_due(session, now=NOON).planned == 0


def test_a_storm_is_planned_in_chunks_that_hold_each_mail_once(session: Session) -> None:
    many_lessons(session, 120, starts_at=IN_A_DAY)
    summary = reminders.enqueue_due(session, now=NOON, chunk=100)
    assert summary == reminders.ReminderSummary(planned=240, deliveries=3)
    chunks = [args[0] for _, args in planned(session)]
    assert sorted(len(chunk) for chunk in chunks) == [40, 100, 100]
    assert sorted(chain.from_iterable(chunks)) == [mail.id for mail in all_mails(session)]


def boundaries() -> list[tuple[datetime, datetime]]:
    """Starts and confirmations at, just before and just after each edge of the rule."""
    starts = [
        NOON + lead + step
        for lead in (*LEADS.values(), timedelta(0))
        for step in (-TICK, timedelta(0), TICK)
    ]
    return [
        (start, start - lead + step)
        for start in starts
        for lead in LEADS.values()
        for step in (-TICK, timedelta(0), TICK, timedelta(days=-3))
    ]


def drawn(number: int) -> list[tuple[datetime, datetime]]:
    rng = Random(20260302)

    def somewhere(until: float) -> timedelta:
        return timedelta(hours=rng.uniform(-2, until))

    starts = [NOON + somewhere(26) for _ in range(number)]
    return [(start, start - somewhere(40)) for start in starts]


def test_the_statement_finds_what_the_rule_says(session: Session) -> None:
    for starts_at, confirmed_at in boundaries() + drawn(200):
        a_lesson(session, starts_at=starts_at, confirmed_at=confirmed_at)
    reminders.enqueue_due(session, now=NOON)

    found = {(mail.subject_id, mail.kind) for mail in all_mails(session)}
    lessons = session.scalars(select(Booking).execution_options(populate_existing=True))
    kinds = {
        lesson.id: due_kind(lesson.starts_at, confirmed_at=lesson.confirmed_at, now=NOON)
        for lesson in lessons
    }
    assert found == {(lesson_id, kind) for lesson_id, kind in kinds.items() if kind}
    assert {kind for _, kind in found} == set(LEADS)
    assert len(found) < len(kinds)
