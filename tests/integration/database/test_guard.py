"""The guard at READ COMMITTED: of two deliveries at the same moment one has the effect."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, func, select, text

from app import clock, db, outbox
from app.models import OutboxEntry, OutboxState, User
from app.outbox import guard
from app.outbox.guard import AlreadyDoneError, Delivery
from tests.builders import a_student
from tests.database import on_postgresql
from tests.integration.database.waiting import wait_until_somebody_waits

pytestmark = on_postgresql

TASK = "app.tasks.health.health_check"


def deliver(delivery: Delivery) -> str:
    """A delivery whose effect is one more user."""
    try:
        with db.transaction() as session:
            guard.mark_done(session, delivery, now=clock.utcnow())
            a_student(session)
    except AlreadyDoneError:
        return "skipped"
    return "had its effect"


def effects() -> int:
    with db.reading() as session:
        return session.scalar(select(func.count()).select_from(User)) or 0


@pytest.fixture
def delivery(database: Engine) -> Delivery:
    with db.transaction() as session:
        return Delivery(outbox.enqueue(session, TASK), TASK)


@pytest.fixture(params=["of the outbox", "of a stock producer"])
def any_delivery(request: pytest.FixtureRequest, delivery: Delivery) -> Delivery:
    if request.param == "of the outbox":
        return delivery
    return Delivery("0196-from-elsewhere", TASK, from_outbox=False)


def test_transactions_are_read_committed(database: Engine) -> None:
    with db.transaction() as session:
        assert session.scalar(text("SHOW transaction_isolation")) == "read committed"


def test_a_second_delivery_waits_for_the_first_and_is_skipped(any_delivery: Delivery) -> None:
    with ThreadPoolExecutor(1) as thread:
        with db.transaction() as session:
            guard.mark_done(session, any_delivery, now=clock.utcnow())
            second = thread.submit(deliver, any_delivery)
            wait_until_somebody_waits()
            a_student(session)
        assert second.result(timeout=10) == "skipped"
    assert effects() == 1


def test_a_second_delivery_has_the_effect_where_the_first_one_failed(
    any_delivery: Delivery,
) -> None:
    with ThreadPoolExecutor(1) as thread:
        with pytest.raises(KeyError), db.transaction() as session:
            guard.mark_done(session, any_delivery, now=clock.utcnow())
            second = thread.submit(deliver, any_delivery)
            wait_until_somebody_waits()
            a_student(session)
            raise KeyError
        assert second.result(timeout=10) == "had its effect"
    assert effects() == 1


def test_an_entry_that_is_cancelled_at_this_moment_has_no_effect(delivery: Delivery) -> None:
    with ThreadPoolExecutor(1) as thread:
        with db.transaction() as session:
            guard.cancel(session, delivery.id, now=clock.utcnow())
            running = thread.submit(deliver, delivery)
            wait_until_somebody_waits()
        assert running.result(timeout=10) == "skipped"
    assert effects() == 0


def test_two_that_enqueue_under_one_key_get_the_same_entry(database: Engine) -> None:
    def enqueue() -> str:
        with db.transaction() as session:
            return outbox.enqueue(session, TASK, key="once")

    with ThreadPoolExecutor(1) as thread:
        with db.transaction() as session:
            first = outbox.enqueue(session, TASK, key="once")
            second = thread.submit(enqueue)
            wait_until_somebody_waits()
        assert second.result(timeout=10) == first
    with db.reading() as session:
        assert session.scalars(select(OutboxEntry.state)).all() == [OutboxState.PENDING]
