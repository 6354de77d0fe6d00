"""The trace id on its way through the outbox."""

from datetime import timedelta

from sqlalchemy import Engine, select

from app import db, outbox, trace
from app.models import EmailMessage, OutboxEntry
from app.outbox import guard
from app.outbox.publish import publish_unpublished
from app.services import email, reminders
from tests.builders import NOON, a_lesson
from tests.fakes import FakeBroker, FakeClock

TASK = "app.tasks.email.deliver"
A = "a" * 32


def trace_of(entry_id: str) -> str | None:
    with db.reading() as session:
        return session.scalar(select(OutboxEntry.trace_id).where(OutboxEntry.id == entry_id))


def test_an_entry_has_the_trace_of_who_planned_it(database: Engine, broker: FakeBroker) -> None:
    with trace.use(A), db.transaction() as session:
        entry_id = outbox.enqueue(session, TASK, 1)
    assert trace_of(entry_id) == A
    assert broker.pushed[-1].trace_id == A


def test_untraced_work_gets_a_trace_of_its_own(database: Engine, broker: FakeBroker) -> None:
    with db.transaction() as session:
        entry_ids = [outbox.enqueue(session, TASK, number) for number in range(2)]
    traces = {trace_of(entry_id) for entry_id in entry_ids}
    assert len(traces) == 2
    assert all(trace.is_valid(trace_id) for trace_id in traces)


def test_a_retry_keeps_the_trace(database: Engine, broker: FakeBroker, now: FakeClock) -> None:
    with trace.use(A), db.transaction() as session:
        entry_id = outbox.enqueue(session, TASK, 1)
    delivery = guard.Delivery(entry_id, TASK)
    with db.transaction() as session:
        guard.put_back(session, delivery, due_at=now.now, error="later", now=now.now)
    publish_unpublished(database, broker, OutboxEntry.id == entry_id)
    assert [message.trace_id for message in broker.pushed] == [A, A]


def test_the_mails_of_a_booking_belong_to_its_trace(database: Engine) -> None:
    with trace.use(A), db.transaction() as session:
        lesson = a_lesson(session, starts_at=NOON + timedelta(days=2))
        email.queue_confirmation(session, lesson.id, now=NOON)
        assert set(session.scalars(select(EmailMessage.trace_id))) == {A}


def test_reminders_planned_in_one_statement_belong_to_its_trace(database: Engine) -> None:
    with trace.use(A), db.transaction() as session:
        a_lesson(session, starts_at=NOON + timedelta(hours=20))
        reminders.enqueue_due(session, now=NOON)
        assert list(session.scalars(select(EmailMessage.trace_id))) == [A, A]
