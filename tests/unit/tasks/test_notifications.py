from datetime import timedelta

import pytest
from celery import states

from app import db, outbox
from app.models import Broadcast, OutboxState
from app.services import bookings, broadcasts
from app.services.broadcasts import PAGE
from app.tasks import celery_app
from app.tasks.notifications import broadcast, notify_booking
from tests.builders import a_crowd, a_lesson, a_service, a_student, all_notifications, an_instructor
from tests.fakes import FakeBroker
from tests.tracing import deliver
from tests.unit.tasks.conftest import entry


def serve_twice(broker: FakeBroker) -> int:
    """Run all that waits, and what it plans, two times each; how many messages there were."""
    served = 0
    while broker.waiting():
        message = broker.take_any()
        for _ in range(2):
            deliver(celery_app.tasks[message.task], message)
        served += 1
    return served


def readers() -> list[int]:
    with db.reading() as session:
        return [told.user_id for told in all_notifications(session)]


def test_a_broadcast_goes_on_by_itself_until_all_are_told(
    broker: FakeBroker,
) -> None:
    with db.transaction() as session:
        everybody = a_crowd(session, 2 * PAGE + 1)
        broadcast_id = broadcasts.create_broadcast(
            session, title="News", body="Text", now=broker.clock.now
        )
    assert serve_twice(broker) == 3
    assert readers() == everybody
    with db.reading() as session:
        assert session.get_one(Broadcast, broadcast_id).finished_at == broker.clock.now


def test_both_sides_are_told_of_a_confirmed_lesson(broker: FakeBroker) -> None:
    with db.transaction() as session:
        service = a_service(session, instructor=an_instructor(session))
        student = a_student(session)
        lesson = bookings.book(
            session,
            student_id=student.id,
            service_id=service.id,
            starts_at=broker.clock.now + timedelta(days=3),
            now=broker.clock.now,
        )
        bookings.confirm(session, lesson.id, now=broker.clock.now)
    message = next(each for each in broker.pushed if each.task == notify_booking.name)
    assert deliver(notify_booking, message).result == {"created": 2}
    assert set(readers()) == {student.id, service.instructor_id}


@pytest.mark.parametrize("kind", ["no such kind", "broadcast"])
def test_a_kind_that_is_not_about_a_lesson_is_a_dead_letter(broker: FakeBroker, kind: str) -> None:
    with db.transaction() as session:
        lesson = a_lesson(session, starts_at=broker.clock.now)
        outbox.enqueue(session, notify_booking.name, lesson.id, kind)
    (message,) = broker.pushed
    assert deliver(notify_booking, message).state == states.FAILURE
    assert entry(message.id).state is OutboxState.DEAD


def test_an_unknown_broadcast_is_a_dead_letter(broker: FakeBroker) -> None:
    with db.transaction() as session:
        outbox.enqueue(session, broadcast.name, 999)
    (message,) = broker.pushed
    deliver(broadcast, message)
    assert entry(message.id).errors[-1]["error"] == "MissingRowError: broadcast 999"
