"""The outbox at one look."""

from datetime import timedelta

from sqlalchemy import Engine

from app import db, outbox
from app.outbox import guard, status
from app.outbox.guard import Delivery
from app.outbox.pump import Pump
from app.outbox.status import Status
from tests.fakes import FakeBroker, FakeClock
from tests.unit.outbox.conftest import MARGIN

TASK = "app.tasks.email.send_booking_confirmation"


def enqueue(after: timedelta | None = None, now: FakeClock | None = None) -> Delivery:
    at = now.now + after if now and after is not None else None
    with db.transaction() as session:
        return Delivery(outbox.enqueue(session, TASK, at=at), TASK)


def read(now: FakeClock) -> Status:
    with db.reading() as session:
        return status.read(session, now=now.now)


def test_of_an_empty_outbox_all_figures_are_zero_and_nothing_is_old(
    database: Engine, now: FakeClock
) -> None:
    assert read(now) == Status()


def test_every_state_is_counted(database: Engine, broker: FakeBroker, now: FakeClock) -> None:
    done, dead, cancelled = enqueue(), enqueue(), enqueue()
    with db.transaction() as session:
        guard.mark_done(session, done, now=now.now)
        guard.bury(session, dead, error="no", now=now.now)
        guard.cancel(session, cancelled.id, now=now.now)
    enqueue()
    enqueue(timedelta(hours=1), now)
    broker.down = True
    enqueue()
    assert read(now) == Status(
        pending=3,
        published=1,
        unpublished=1,
        later=1,
        done=1,
        dead=1,
        cancelled=1,
        oldest=timedelta(0),
        oldest_unpublished=timedelta(0),
    )


def test_the_oldest_is_the_one_that_was_due_first_not_the_one_planned_first(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    enqueue(timedelta(hours=2), now)
    now.advance(minutes=10)
    enqueue()
    now.advance(minutes=5)
    seen = read(now)
    assert (seen.oldest, seen.oldest_unpublished) == (timedelta(minutes=5), None)


def test_the_oldest_unpublished_tells_how_long_the_pump_is_away(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    enqueue()
    broker.down = True
    now.advance(minutes=1)
    enqueue()
    now.advance(minutes=2)
    seen = read(now)
    assert seen.oldest == timedelta(minutes=3)
    assert seen.oldest_unpublished == timedelta(minutes=2)


def test_a_message_that_was_gone_and_resent_is_counted(
    pump: Pump, broker: FakeBroker, now: FakeClock
) -> None:
    enqueue()
    broker.lose_everything()
    now.advance(seconds=MARGIN.total_seconds() + 1)
    pump.run()
    pump.run()
    assert read(now).resent == 1


def test_an_entry_is_found_by_its_id(database: Engine, broker: FakeBroker, now: FakeClock) -> None:
    planned = enqueue()
    with db.reading() as session:
        found = status.entry(session, planned.id)
        assert found is not None
        assert (found.id, found.task) == (planned.id, TASK)
        assert status.entry(session, "nobody") is None
