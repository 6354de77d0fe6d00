"""Several pumps on PostgreSQL: none waits for another, and each row is published once."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier

import pytest
from sqlalchemy import Engine, select, update
from sqlalchemy.orm import Session

from app import db, outbox
from app.models import OutboxEntry, OutboxState
from app.outbox import guard
from app.outbox.publish import BATCH
from app.outbox.pump import HOOK_GRACE, Pump
from tests.database import on_postgresql
from tests.fakes import FakeBroker, FakeClock

pytestmark = on_postgresql

TASK = "app.tasks.health.health_check"
PUMPS = 3


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    return FakeClock.install(monkeypatch, datetime(2026, 7, 1, 12, tzinfo=UTC))


@pytest.fixture
def broker(now: FakeClock) -> FakeBroker:
    return FakeBroker(now)


def pump_for(database: Engine, broker: FakeBroker) -> Pump:
    return Pump(database, broker, margin=timedelta(seconds=10), max_publishes=3)


def enqueue(count: int, now: FakeClock) -> list[str]:
    """Ids of entries that wait for the pump."""
    with db.transaction() as session:
        entry_ids = [outbox.enqueue(session, TASK) for _ in range(count)]
    now.advance(seconds=HOOK_GRACE.total_seconds())
    return entry_ids


def test_pumps_at_the_same_moment_publish_each_row_once(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    entry_ids = enqueue(PUMPS * BATCH, now)
    together = Barrier(PUMPS)

    def run(pump: Pump) -> None:
        together.wait()
        while pump.run().published:
            pass

    with ThreadPoolExecutor(PUMPS) as threads:
        list(threads.map(run, [pump_for(database, broker) for _ in range(PUMPS)]))
    assert Counter(message.id for message in broker.pushed) == Counter(entry_ids)


def test_one_round_publishes_one_batch(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    enqueue(BATCH + 1, now)
    assert pump_for(database, broker).run().published == BATCH


def test_a_pump_passes_over_what_another_one_is_publishing(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    taken, free = enqueue(2, now)
    with ThreadPoolExecutor(1) as thread, db.transaction() as session:
        session.scalar(select(OutboxEntry.id).where(OutboxEntry.id == taken).with_for_update())
        thread.submit(pump_for(database, broker).run).result(timeout=10)
        assert [message.id for message in broker.pushed] == [free]
    pump_for(database, broker).run()
    assert [message.id for message in broker.pushed] == [free, taken]


def test_pumps_at_the_same_moment_resend_a_lost_message_once(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    entry_ids = enqueue(20, now)
    pumps = [pump_for(database, broker) for _ in range(PUMPS)]
    pumps[0].run()
    broker.lose_everything()
    now.advance(minutes=1)
    for pump in pumps:
        pump.run()  # each suspects them now
    broker.pushed.clear()
    together = Barrier(PUMPS)

    def run(pump: Pump) -> None:
        together.wait()
        pump.run()

    with ThreadPoolExecutor(PUMPS) as threads:
        list(threads.map(run, pumps))
    assert Counter(message.id for message in broker.pushed) == Counter(entry_ids)


@pytest.mark.parametrize("publishes", [1, 3], ids=["gone once", "gone too often"])
def test_a_lost_message_whose_entry_a_task_has_marked_holds_up_no_other(
    database: Engine, broker: FakeBroker, now: FakeClock, publishes: int
) -> None:
    held, free, *others = enqueue(5, now)
    pump = pump_for(database, broker)
    pump.run()
    now.advance(seconds=1)
    with db.transaction() as session:
        gone = OutboxEntry.id.in_([held, free])
        session.execute(update(OutboxEntry).where(gone).values(publishes=publishes))
        for other in others:  # more than are lost: it is no outage
            guard.mark_done(session, guard.Delivery(other, TASK), now=now.now)
    broker.lose_everything()
    now.advance(minutes=1)
    pump.run()  # suspects them now
    with Session(database) as task, ThreadPoolExecutor(1) as thread:
        guard.mark_done(task, guard.Delivery(held, TASK), now=now.now)
        done = thread.submit(pump.run).result(timeout=5)
        task.rollback()
    assert (done.resent, done.buried) == ((1, 0) if publishes == 1 else (0, 1))
    with db.reading() as session:
        untouched = session.get_one(OutboxEntry, held)
        assert (untouched.state, untouched.publishes) == (OutboxState.PENDING, publishes)
        assert session.get_one(OutboxEntry, free).publishes == (2 if publishes == 1 else 3)
