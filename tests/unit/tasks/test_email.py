from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from random import Random
from typing import Any

import pytest
from celery import states
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import select

from app import db, outbox
from app.adapters.mailer import MailFateUnknownError
from app.models import (
    BookingStatus,
    EmailKind,
    EmailMessage,
    EmailState,
    OutboxEntry,
    OutboxState,
    PasswordReset,
)
from app.routing import wire_priority
from app.services import digests, email_delivery, password_resets
from app.services.email_delivery import DeliverySummary
from app.settings import load_settings
from app.tasks import email
from tests.builders import (
    a_counted_day,
    a_lesson,
    a_mail,
    a_notification,
    a_student,
    all_mails,
    an_instructor,
    an_instructors_day,
)
from tests.fakes import FakeBroker, FakeClock
from tests.mailers import FakeMailer
from tests.tracing import deliver
from tests.unit.tasks.conftest import entry

NOTHING_DONE = DeliverySummary(
    sent=0, failed=0, cancelled=0, skipped=0, left=(), error=None, retry_after=None
)

YESTERDAY = "2026-06-30"  # the fixtures' clock begins the day after
YESTERDAY_NOON = datetime(2026, 6, 30, 16, tzinfo=UTC)


@pytest.fixture
def mailer(monkeypatch: pytest.MonkeyPatch) -> FakeMailer:
    fake = FakeMailer()
    monkeypatch.setattr(email, "mailer_from", lambda settings: fake)
    return fake


def run(broker: FakeBroker, task: Any, *args: Any) -> Any:
    """Deliver a message of the task, planned now; the outcome."""
    with db.transaction() as session:
        outbox.enqueue(session, task.name, *args)
    return deliver(task, broker.pushed[-1])


def mails() -> list[tuple[EmailKind, int]]:
    with db.reading() as session:
        return [(mail.kind, mail.subject_id) for mail in all_mails(session)]


def a_planned_mail(broker: FakeBroker) -> tuple[int, Any]:
    with db.transaction() as session:
        starts_at = broker.clock.now + timedelta(days=2)
        mail = a_mail(session, about=a_lesson(session, starts_at=starts_at))
        outbox.enqueue(session, email.deliver.name, [mail.id])
    return mail.id, broker.pushed[-1]


def state_of(email_id: int) -> EmailState:
    with db.reading() as session:
        return session.scalars(select(EmailMessage.state).where(EmailMessage.id == email_id)).one()


def test_a_delivered_chunk_is_done(broker: FakeBroker, mailer: FakeMailer) -> None:
    email_id, message = a_planned_mail(broker)
    assert deliver(email.deliver, message).result == {"sent": 1, "failed": 0, "cancelled": 0}
    assert (state_of(email_id), entry(message.id).state) == (EmailState.SENT, OutboxState.DONE)
    assert deliver(email.deliver, message).result["status"] == "skipped"
    assert len(mailer.received) == 1


def test_a_chunk_waits_in_its_entry_while_the_server_is_away(
    broker: FakeBroker, mailer: FakeMailer
) -> None:
    mailer.down = True
    email_id, message = a_planned_mail(broker)
    assert deliver(email.deliver, message).state == states.RETRY
    assert (state_of(email_id), entry(message.id).tries) == (EmailState.QUEUED, 1)


def test_a_chunk_with_a_leased_mail_comes_again_when_the_lease_ends(
    broker: FakeBroker, mailer: FakeMailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed = MailFateUnknownError("mail.example:25: timed out after the message")
    summary = replace(NOTHING_DONE, retry_after=77.0, claimed=claimed)
    monkeypatch.setattr(email_delivery, "deliver", lambda *_, **__: summary)
    _, message = a_planned_mail(broker)
    assert deliver(email.deliver, message).state == states.RETRY
    row = entry(message.id)
    assert (row.due_at - broker.clock.now).total_seconds() == 77.0
    assert row.errors[-1]["error"] == (
        "MailFateUnknownError: mail.example:25: timed out after the message"
    )


def test_what_a_run_had_no_time_for_goes_on_in_a_new_entry(
    broker: FakeBroker, mailer: FakeMailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = replace(NOTHING_DONE, sent=1, left=(7, 8))
    monkeypatch.setattr(email_delivery, "deliver", lambda *_, **__: summary)
    _, message = a_planned_mail(broker)
    assert deliver(email.deliver, message).state == states.SUCCESS
    with db.reading() as session:
        args = list(session.scalars(select(OutboxEntry.args).where(OutboxEntry.id != message.id)))
    assert args == [[[7, 8]]]
    assert entry(message.id).tries == 0


def test_what_a_run_had_no_time_for_keeps_its_urgency(
    broker: FakeBroker, mailer: FakeMailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = replace(NOTHING_DONE, sent=1, left=(7, 8))
    monkeypatch.setattr(email_delivery, "deliver", lambda *_, **__: summary)
    with db.transaction() as session:
        outbox.enqueue(session, email.deliver.name, [6, 7, 8], urgency=3)
    deliver(email.deliver, broker.pushed[-1])
    assert broker.pushed[-1].args == [[7, 8]]
    assert broker.pushed[-1].priority == wire_priority(3)


def test_failed_mails_that_a_run_had_no_time_for_go_on_as_such(
    broker: FakeBroker, mailer: FakeMailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = replace(NOTHING_DONE, sent=1, left=(7, 8))
    monkeypatch.setattr(email_delivery, "deliver", lambda *_, **__: summary)
    run(broker, email.deliver, [6, 7, 8], True)
    assert broker.pushed[-1].args == [[7, 8], True]


def test_a_chunk_that_its_time_limit_interrupts_comes_again_for_the_rest(
    broker: FakeBroker, mailer: FakeMailer
) -> None:
    """The limit strikes while the second mail of three is in hand."""
    with db.transaction() as session:
        lessons = [
            a_lesson(session, starts_at=broker.clock.now + timedelta(days=2)) for _ in range(3)
        ]
        email_ids = [a_mail(session, about=lesson).id for lesson in lessons]
        outbox.enqueue(session, email.deliver.name, email_ids)
        second = lessons[1].student.email
    message = broker.pushed[-1]
    mailer.faults[second] = [SoftTimeLimitExceeded()]
    assert deliver(email.deliver, message).state == states.RETRY
    assert entry(message.id).state is OutboxState.PENDING
    assert [state_of(email_id) for email_id in email_ids] == [
        EmailState.SENT,
        EmailState.SENDING,
        EmailState.QUEUED,
    ]
    broker.clock.advance(seconds=load_settings().mail_lease_seconds)
    assert deliver(email.deliver, replace(message, tries=1)).state == states.SUCCESS
    assert len(set(mailer.message_ids())) == len(mailer.received) == 3


def test_both_sides_hear_of_a_no_show(broker: FakeBroker) -> None:
    with db.transaction() as session:
        lesson = a_lesson(session, starts_at=broker.clock.now, status=BookingStatus.NO_SHOW)
    assert run(broker, email.send_no_show_notice, lesson.id).result == {"planned": 2}
    assert mails() == [(EmailKind.NO_SHOW, lesson.id)] * 2


def test_a_password_reset_is_mailed_by_its_number_alone(
    broker: FakeBroker, mailer: FakeMailer
) -> None:
    with db.transaction() as session:
        user = a_student(session)
        password_resets.request(session, user.email, now=broker.clock.now, rng=Random(7))
        token = session.scalars(select(PasswordReset.token)).one()
    outcomes = [deliver(email.send_password_reset, broker.pushed[-1])]
    outcomes.append(deliver(email.deliver, broker.pushed[-1]))
    text = mailer.received[0].get_body(("plain",))
    assert text is not None
    assert token is not None
    assert token in text.get_content()
    assert token not in f"{broker.pushed} {outcomes}"
    urgent = wire_priority(password_resets.URGENCY)
    assert [message.priority for message in broker.pushed] == [urgent, urgent]


def test_a_digest_that_is_delivered_twice_is_sent_once(
    broker: FakeBroker, mailer: FakeMailer
) -> None:
    with db.transaction() as session:
        a_notification(session, user=a_student(session), created_at=YESTERDAY_NOON)
        outbox.enqueue(session, email.send_digests.name, YESTERDAY)
    planning = broker.pushed[-1]
    assert deliver(email.send_digests, planning).result == {
        "planned": 1,
        "deliveries": 1,
        "goes_on": False,
    }
    assert deliver(email.send_digests, planning).result["status"] == "skipped"
    run(broker, email.send_digests, YESTERDAY)
    for message in list(broker.pushed):
        if message.task == email.deliver.name:
            deliver(email.deliver, message)
            deliver(email.deliver, message)
    assert len(mailer.received) == 1
    assert mails() == [(EmailKind.DIGEST, 20260630)]


def test_the_pages_of_a_digest_follow_each_other_through_the_outbox(
    broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "enqueue", partial(digests.enqueue, page=2))
    with db.transaction() as session:
        for _ in range(5):
            a_notification(session, user=a_student(session), created_at=YESTERDAY_NOON)
        outbox.enqueue(session, email.send_digests.name, YESTERDAY)
    while any(message.task == email.send_digests.name for message in broker.pushed):
        message = next(one for one in broker.pushed if one.task == email.send_digests.name)
        broker.pushed.remove(message)
        deliver(email.send_digests, message)
    assert len(mails()) == 5


def test_a_weekly_report_begins_on_a_monday(broker: FakeBroker) -> None:
    monday = date(2026, 6, 22)
    with db.transaction() as session:
        an_instructors_day(session, instructor=an_instructor(session), date=monday)
    run(broker, email.send_weekly_reports, monday.isoformat())
    assert mails() == [(EmailKind.WEEKLY_REPORT, 20260622)]


def test_a_weekly_report_of_a_week_that_goes_on_is_about_the_days_so_far(
    broker: FakeBroker, now: FakeClock
) -> None:
    now.now = datetime(2026, 6, 24, 4, tzinfo=UTC)  # midnight in US/Eastern
    monday = date(2026, 6, 22)
    with db.transaction() as session:
        an_instructors_day(session, instructor=an_instructor(session), date=monday)
        a_counted_day(session, monday)
    assert run(broker, email.send_weekly_reports, monday.isoformat()).state == states.RETRY
    with db.transaction() as session:
        a_counted_day(session, monday + timedelta(days=1))
    run(broker, email.send_weekly_reports, monday.isoformat())
    assert mails() == [(EmailKind.WEEKLY_REPORT, 20260622)]


def test_a_weekly_report_waits_for_each_day_that_is_not_counted(broker: FakeBroker) -> None:
    monday = date(2026, 6, 22)
    with db.transaction() as session:
        an_instructors_day(session, instructor=an_instructor(session), date=monday)
        for day in range(-1, 6):
            a_counted_day(session, monday + timedelta(days=day))
    assert run(broker, email.send_weekly_reports, monday.isoformat()).state == states.RETRY
    row = entry(broker.pushed[-1].id)
    assert "WeekNotCountedError: not counted yet: 2026-06-28" in row.errors[0]["error"]
    assert mails() == []
    with db.transaction() as session:
        a_counted_day(session, monday + timedelta(days=6))
    run(broker, email.send_weekly_reports, monday.isoformat())
    assert mails() == [(EmailKind.WEEKLY_REPORT, 20260622)]


@pytest.mark.parametrize(
    ("task", "day", "said"),
    [
        (email.send_weekly_reports, "2026-06-23", "2026-06-23 is a Tuesday: pass the Monday"),
        (email.send_weekly_reports, "soon", "'soon' is no day: pass a date such as"),
        (email.send_digests, "soon", "'soon' is no day: pass a date such as"),
    ],
)
def test_a_day_that_cannot_be_meant_is_a_dead_letter_at_once(
    broker: FakeBroker, task: Any, day: str, said: str
) -> None:
    assert run(broker, task, day).state == states.FAILURE
    row = entry(broker.pushed[-1].id)
    assert (row.state, row.tries, mails()) == (OutboxState.DEAD, 0, [])
    assert row.errors[0]["error"].startswith(f"WrongDayError: {said}")
