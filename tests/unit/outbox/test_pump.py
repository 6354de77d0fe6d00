from collections import deque
from datetime import timedelta
from itertools import pairwise

import pytest
from sqlalchemy import Engine, func, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app import db, outbox
from app.models import OutboxEntry, OutboxState
from app.outbox import BrokerUnavailableError
from app.outbox.guard import Delivery, mark_done, put_back
from app.outbox.publish import BATCH
from app.outbox.pump import HOOK_GRACE, INCONCLUSIVE_FOR, LONGEST_WAIT, Pump
from simulations.marketplace.faults import DEPTHS
from tests.database import on_postgresql
from tests.fakes import FOREIGN, FakeBroker, FakeClock
from tests.unit.outbox.conftest import MARGIN, MAX_PUBLISHES

TASK = "app.tasks.email.send_booking_confirmation"
A_MOMENT = timedelta(milliseconds=1)


def enqueue(count: int = 1, **options: object) -> list[str]:
    with db.transaction() as session:
        return [outbox.enqueue(session, TASK, n, **options) for n in range(count)]  # type: ignore[arg-type]


def entry(entry_id: str) -> OutboxEntry:
    with db.reading() as session:
        return session.scalars(select(OutboxEntry).where(OutboxEntry.id == entry_id)).one()


def resent() -> int:
    with db.reading() as session:
        return session.scalar(select(func.sum(OutboxEntry.resent))) or 0


def finish(broker: FakeBroker, queue: str = "email") -> None:
    message = broker.take(queue)
    with db.transaction() as session:
        mark_done(session, Delivery(message.id, message.task), now=broker.clock.now)
    broker.holding.remove(message)


def rounds(pump: Pump, now: FakeClock, count: int, step: float = 1.0) -> None:
    for _ in range(count):
        pump.run()
        now.advance(seconds=step)


def test_the_pump_leaves_a_fresh_entry_to_the_process_that_committed_it(
    pump: Pump, broker: FakeBroker, now: FakeClock
) -> None:
    broker.down = True
    enqueue()
    broker.down = False
    now.advance(seconds=(HOOK_GRACE - A_MOMENT).total_seconds())
    assert pump.run().published == 0
    now.advance(seconds=A_MOMENT.total_seconds())
    assert pump.run().published == 1
    assert pump.run().published == 0


def test_an_entry_is_published_when_it_is_due(
    pump: Pump, broker: FakeBroker, now: FakeClock
) -> None:
    enqueue(at=now.now + timedelta(hours=1))
    now.advance(minutes=59)
    assert pump.run().published == 0
    now.advance(minutes=1)
    assert pump.run().published == 1


def planned_for_the_relay(now: FakeClock, count: int, **options: object) -> list[str]:
    """Entries that are due in a second, in the order of their ids."""
    return sorted(enqueue(count, at=now.now + timedelta(seconds=1), **options))


def test_entries_are_published_by_urgency_then_due_instant_then_id(
    pump: Pump, broker: FakeBroker, now: FakeClock
) -> None:
    late = planned_for_the_relay(now, 2, urgency=3)
    urgent = planned_for_the_relay(now, 2, urgency=8)
    now.advance(seconds=-30)
    early = planned_for_the_relay(now, 2, urgency=3)
    earlier_and_urgent = planned_for_the_relay(now, 2, urgency=8)
    now.advance(seconds=31)
    assert pump.run().published == 8
    published = [message.id for message in broker.pushed]
    assert published == [*earlier_and_urgent, *urgent, *early, *late]


def test_an_urgent_entry_goes_with_the_next_batch_whatever_waits(
    pump: Pump, broker: FakeBroker, now: FakeClock
) -> None:
    planned_for_the_relay(now, 2 * BATCH + 1, urgency=3)
    now.advance(seconds=1)
    assert pump.run().more
    (urgent,) = enqueue_urgent(broker, now)
    assert pump.run().more
    assert broker.pushed[BATCH].id == urgent
    assert len(broker.pushed) == 2 * BATCH


def enqueue_urgent(broker: FakeBroker, now: FakeClock) -> list[str]:
    """One that its process could not publish itself."""
    broker.down = True
    planned = enqueue(urgency=9)
    broker.down = False
    now.advance(seconds=HOOK_GRACE.total_seconds())
    return planned


def test_lost_messages_are_republished_by_urgency(
    pump: Pump, broker: FakeBroker, now: FakeClock
) -> None:
    enqueue(BATCH + 1, urgency=3)
    now.advance(seconds=1)
    urgent = sorted(enqueue(3, urgency=8))
    broker.lose_everything()
    now.advance(seconds=MARGIN.total_seconds() + 1)
    rounds(pump, now, 2)
    assert [message.id for message in broker.pushed[-BATCH:][:3]] == urgent


def test_a_retry_is_published_when_it_is_due(
    pump: Pump, broker: FakeBroker, now: FakeClock
) -> None:
    (entry_id,) = enqueue()
    message = broker.take("email")
    now.advance(seconds=1)
    with db.transaction() as session:
        due_at = now.now + timedelta(seconds=1)
        delivery = Delivery(message.id, message.task)
        assert put_back(session, delivery, due_at=due_at, error="no", now=now.now)
    broker.holding.clear()
    assert pump.run().published == 0
    now.advance(seconds=1)
    assert pump.run().published == 1
    assert broker.pushed[-1].tries == 1
    assert entry(entry_id).publishes == 1


def test_a_backlog_is_not_resent_however_long_it_waits(
    pump: Pump, broker: FakeBroker, now: FakeClock
) -> None:
    for _ in range(20):
        enqueue(5)
        now.advance(seconds=7)
    for _ in range(100):
        rounds(pump, now, 3, step=40)
        finish(broker)
    assert resent() == 0


def test_what_a_worker_holds_is_not_resent(pump: Pump, broker: FakeBroker, now: FakeClock) -> None:
    enqueue()
    broker.take("email")
    rounds(pump, now, 200, step=30)
    assert resent() == 0


def test_what_is_gone_is_resent_under_its_id(
    pump: Pump, broker: FakeBroker, now: FakeClock
) -> None:
    (entry_id,) = enqueue()
    broker.lose_everything()
    now.advance(seconds=MARGIN.total_seconds() + 1)
    assert pump.run().resent == 0, "a message between two places is seen in neither"
    assert pump.run().resent == 1
    assert [message.id for message in broker.pushed] == [entry_id, entry_id]
    rounds(pump, now, 5)
    assert resent() == 1


def test_a_message_lost_from_the_middle_of_a_backlog_is_resent(
    pump: Pump, broker: FakeBroker, now: FakeClock
) -> None:
    enqueue(3)
    lost = broker.take("email")
    broker.holding.clear()
    now.advance(seconds=MARGIN.total_seconds() + 1)
    enqueue(3)
    rounds(pump, now, 5)
    assert resent() == 0, "the lists' oldest message is as old as the lost one"
    finish(broker)
    finish(broker)
    rounds(pump, now, 5)
    assert [message.id for message in broker.pushed].count(lost.id) == 2
    assert resent() == 1


def test_messages_lost_behind_many_held_ones_are_republished(
    pump: Pump, broker: FakeBroker, now: FakeClock
) -> None:
    """More are held than the relay reads in one statement."""
    enqueue(2 * BATCH + 100)
    while broker.waiting():
        broker.take("email")
    lost = set(enqueue(50))
    broker.lists.clear()
    now.advance(seconds=MARGIN.total_seconds() + 1)
    rounds(pump, now, 2)
    assert {message.id for message in broker.pushed[-50:]} == lost
    assert resent() == 50


def test_a_message_younger_than_the_margin_is_not_taken_for_gone(
    pump: Pump, broker: FakeBroker, now: FakeClock
) -> None:
    enqueue()
    broker.lose_everything()
    now.advance(seconds=MARGIN.total_seconds())
    rounds(pump, now, 3, step=0)
    assert resent() == 0


def test_nothing_is_concluded_behind_a_foreign_message_for_an_hour(
    pump: Pump, broker: FakeBroker, now: FakeClock
) -> None:
    enqueue()
    key = next(iter(broker.lists))
    broker.lose_everything()
    broker.lists[key].append(FOREIGN)
    now.advance(seconds=INCONCLUSIVE_FOR.total_seconds())
    rounds(pump, now, 3, step=0)
    assert resent() == 0
    now.advance(seconds=1)
    rounds(pump, now, 3, step=0)
    assert resent() == 1


def test_two_pumps_resend_once(
    pump: Pump, database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    other = Pump(database, broker, margin=MARGIN, max_publishes=MAX_PUBLISHES)
    enqueue(4)
    broker.lose_everything()
    now.advance(seconds=MARGIN.total_seconds() + 1)
    for _ in range(3):
        pump.run()
        other.run()
    assert resent() == 4


def test_a_push_whose_answer_was_lost_is_done_again(
    pump: Pump, broker: FakeBroker, now: FakeClock
) -> None:
    broker.fails_after_push = True
    (entry_id,) = enqueue()
    broker.fails_after_push = False
    assert entry(entry_id).published_at is None
    now.advance(seconds=HOOK_GRACE.total_seconds())
    assert pump.run().published == 1
    assert broker.waiting() == 2, "the guard stops the second"


def planned_unpublished(broker: FakeBroker, now: FakeClock, count: int) -> list[str]:
    """Entries that only the relay publishes."""
    broker.down = True
    planned = enqueue(count)
    broker.down = False
    now.advance(seconds=HOOK_GRACE.total_seconds())
    return planned


@pytest.mark.parametrize(
    "error", [RecursionError("too deep"), BrokerUnavailableError("Redis: connection reset")]
)
@pytest.mark.parametrize("guilty", [(0,), (6,), (2, 3, 9)], ids=str)
def test_an_entry_that_cannot_be_published_stops_no_other(
    pump: Pump,
    broker: FakeBroker,
    now: FakeClock,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    guilty: tuple[int, ...],
) -> None:
    planned = planned_unpublished(broker, now, 10)
    refused = [planned[number] for number in guilty]
    broker.refuses = dict.fromkeys(refused, error)
    assert pump.run().published == 10 - len(guilty)
    assert {message.id for message in broker.pushed} == {*planned} - {*refused}
    for entry_id in refused:
        waits = entry(entry_id)
        assert (waits.state, waits.tries, waits.published_at) == (OutboxState.PENDING, 1, None)
        assert waits.due_at > now.now
        assert f"cannot be published: {type(error).__name__}" in waits.errors[-1]["error"]
        assert entry_id in caplog.text
    assert pump.run().published == 0


def test_the_next_batch_follows_at_once_also_after_one_with_a_guilty_entry(
    pump: Pump, broker: FakeBroker, now: FakeClock
) -> None:
    planned = planned_unpublished(broker, now, BATCH + 2)
    broker.refuses = {min(planned): RecursionError("too deep")}
    done = pump.run()
    assert (done.published, done.more) == (BATCH - 1, True)
    done = pump.run()
    assert (done.published, done.more) == (2, False)


def test_an_entry_that_can_never_be_published_becomes_a_dead_letter(
    pump: Pump, broker: FakeBroker, now: FakeClock
) -> None:
    (entry_id,) = planned_unpublished(broker, now, 1)
    broker.refuses = {entry_id: RecursionError("too deep")}
    for _ in range(20):
        pump.run()
        now.advance(hours=1)
    assert entry(entry_id).state is OutboxState.DEAD


@pytest.mark.parametrize("column", ["args", "kwargs"])
def test_an_entry_that_cannot_be_read_stops_no_other_and_becomes_a_dead_letter(
    pump: Pump, broker: FakeBroker, now: FakeClock, column: str
) -> None:
    """An older release, or a newer Python, has enqueued what this one cannot decode."""
    first, deep, last = planned_unpublished(broker, now, 3)
    nested = "[" * DEPTHS[1] + "]" * DEPTHS[1]
    with db.engine().begin() as connection:
        connection.exec_driver_sql(
            f"UPDATE outbox_entries SET {column} = '{nested}' WHERE id = '{deep}'"  # noqa: S608
        )
    assert pump.run().published == 2
    assert {message.id for message in broker.pushed} == {first, last}
    for _ in range(20):
        now.advance(hours=1)
        pump.run()
    dead = entry(deep)
    assert dead.state is OutboxState.DEAD
    assert db.TOO_DEEP in dead.errors[-1]["error"]


def test_a_broker_that_takes_no_message_is_the_fault_of_no_entry(
    pump: Pump, broker: FakeBroker, now: FakeClock
) -> None:
    """A full Redis answers everything else."""
    planned = planned_unpublished(broker, now, 100)
    broker.full = True
    for _ in range(3):
        with pytest.raises(BrokerUnavailableError, match="full"):
            pump.run()
        now.advance(hours=1)
    assert all(entry(entry_id).tries == 0 for entry_id in planned)
    broker.full = False
    assert pump.run().published == 100


@pytest.mark.parametrize("ends_as", ["down", "full"])
def test_a_broker_that_ends_midway_is_the_fault_of_no_entry(
    pump: Pump, broker: FakeBroker, now: FakeClock, ends_as: str
) -> None:
    planned = planned_unpublished(broker, now, 100)
    broker.refuses = {planned[0]: RecursionError("too deep")}
    broker.ends_after, broker.ends_as = 60, ends_as
    with pytest.raises(BrokerUnavailableError):
        pump.run()
    assert len(broker.pushed) > 0
    assert all(entry(entry_id).tries == 0 for entry_id in planned[1:])
    broker.down = broker.full = False
    broker.ends_after = None
    pump.run()
    assert {message.id for message in broker.pushed} == set(planned[1:])
    assert entry(planned[0]).tries == 1


def test_a_database_that_fails_meanwhile_is_the_fault_of_no_entry(
    pump: Pump, broker: FakeBroker, now: FakeClock
) -> None:
    planned = planned_unpublished(broker, now, 3)
    locked = OperationalError("UPDATE", {}, Exception("database is locked"))
    broker.refuses = {planned[1]: locked}
    with pytest.raises(OperationalError):
        pump.run()
    assert entry(planned[1]).tries == 0


def test_an_outage_changes_no_entry(pump: Pump, broker: FakeBroker, now: FakeClock) -> None:
    broker.down = True
    (entry_id,) = enqueue()
    now.advance(hours=5)
    for _ in range(5):
        with pytest.raises(BrokerUnavailableError):
            pump.run()
    assert (entry(entry_id).publishes, entry(entry_id).state) == (0, OutboxState.PENDING)


def finish_others(broker: FakeBroker, count: int = 5) -> None:
    """Publish other work after what waits, and run it at once."""
    waiting = {key: deque(messages) for key, messages in broker.lists.items()}
    broker.lists.clear()
    enqueue(count)
    for _ in range(count):
        finish(broker)
    broker.lists.update(waiting)


def test_a_message_that_is_gone_again_and_again_while_others_run_becomes_a_dead_letter(
    pump: Pump, broker: FakeBroker, now: FakeClock
) -> None:
    (entry_id,) = enqueue()
    for _ in range(MAX_PUBLISHES + 2):
        now.advance(seconds=1)
        finish_others(broker)
        broker.lose_everything()
        rounds(pump, now, 3, step=MARGIN.total_seconds() + 1)
    assert entry(entry_id).state is OutboxState.DEAD
    assert entry(entry_id).publishes == MAX_PUBLISHES
    assert "gone from the broker" in entry(entry_id).errors[-1]["error"]


@on_postgresql
def test_a_lost_message_counts_once_however_long_its_row_is_locked(
    pump: Pump, broker: FakeBroker, now: FakeClock, database: Engine
) -> None:
    (locked,) = enqueue()
    with Session(database) as other:
        other.get(OutboxEntry, locked, with_for_update=True)
        (entry_id,) = enqueue()
        for _ in range(MAX_PUBLISHES + 2):
            now.advance(seconds=1)
            finish_others(broker)
            broker.lose_everything()
            rounds(pump, now, 10, step=MARGIN.total_seconds() / 4)
        assert entry(entry_id).state is OutboxState.DEAD
    assert entry(locked).state is OutboxState.PENDING


def test_nothing_is_buried_while_all_messages_are_gone(
    pump: Pump, broker: FakeBroker, now: FakeClock
) -> None:
    planned = enqueue(20)
    for _ in range(5 * MAX_PUBLISHES):
        broker.lose_everything()
        rounds(pump, now, 3, step=LONGEST_WAIT.total_seconds() + 1)
    assert {entry(entry_id).state for entry_id in planned} == {OutboxState.PENDING}


def test_what_was_gone_in_an_outage_is_not_buried_when_others_run_again(
    pump: Pump, broker: FakeBroker, now: FakeClock
) -> None:
    (entry_id,) = enqueue()
    for _ in range(5 * MAX_PUBLISHES):
        broker.lose_everything()
        rounds(pump, now, 3, step=LONGEST_WAIT.total_seconds() + 1)
    now.advance(seconds=1)
    finish_others(broker)
    broker.lose_everything()
    rounds(pump, now, 3, step=LONGEST_WAIT.total_seconds() + 1)
    assert entry(entry_id).state is OutboxState.PENDING


def test_nothing_is_buried_while_more_messages_are_gone_than_run(
    pump: Pump, broker: FakeBroker, now: FakeClock
) -> None:
    """Most workers lose what they take, such as those of an older version without a database."""
    planned = enqueue(20)
    for _ in range(5 * MAX_PUBLISHES):
        now.advance(seconds=1)
        finish_others(broker, count=15)
        broker.lose_everything()
        rounds(pump, now, 3, step=LONGEST_WAIT.total_seconds() + 1)
    assert {entry(entry_id).state for entry_id in planned} == {OutboxState.PENDING}


def test_a_message_that_is_gone_again_is_resent_after_longer_and_longer_waits(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    pump = Pump(database, broker, margin=MARGIN, max_publishes=20)
    (entry_id,) = enqueue()
    gaps, last = [], entry(entry_id).published_at
    assert last is not None
    for _ in range(3000):
        broker.lose_everything()
        pump.run()
        again = entry(entry_id).published_at
        assert again is not None
        if again != last:
            gaps.append((again - last).total_seconds())
            last = again
        now.advance(seconds=1)
    most = MARGIN.total_seconds() + 3
    assert max(gaps[:3]) <= most, "a message that is lost once is not waited for"
    assert gaps == sorted(gaps)
    assert all(later <= 2 * sooner for sooner, later in pairwise(gaps))
    assert LONGEST_WAIT.total_seconds() <= gaps[-1] <= LONGEST_WAIT.total_seconds() + 3


def test_a_message_that_is_gone_once_is_found_behind_many_that_wait_to_be_resent(
    pump: Pump, broker: FakeBroker, now: FakeClock
) -> None:
    enqueue(3 * BATCH)
    with db.transaction() as session:
        session.execute(update(OutboxEntry).values(publishes=50))
    now.advance(seconds=60)
    (fresh,) = enqueue()
    broker.lose_everything()
    now.advance(seconds=MARGIN.total_seconds() + 1)
    rounds(pump, now, 2, step=0)
    assert entry(fresh).resent == 1
    assert resent() == 1


def test_an_entry_of_a_queue_that_is_no_more_dies_without_stopping_the_others(
    pump: Pump, broker: FakeBroker, now: FakeClock
) -> None:
    broker.down = True
    homeless, other = enqueue(2)
    broker.down = False
    with db.transaction() as session:
        session.execute(
            update(OutboxEntry).where(OutboxEntry.id == homeless).values(queue="abolished")
        )
    now.advance(seconds=HOOK_GRACE.total_seconds())
    assert pump.run().published == 1
    assert [message.id for message in broker.pushed] == [other]
    assert entry(homeless).state is OutboxState.DEAD
    assert "abolished" in entry(homeless).errors[-1]["error"]


def test_the_publishers_own_clock_does_not_matter_to_what_is_gone(
    database: Engine,
    pump: Pump,
    broker: FakeBroker,
    now: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    enqueue(5)
    ahead = FakeClock(now.now + timedelta(minutes=5))
    with monkeypatch.context() as skewed:
        skewed.setattr("app.clock.utcnow", ahead)
        enqueue(5)
    enqueue(5)
    rounds(pump, now, 10, step=30)
    while broker.waiting():
        finish(broker)
        rounds(pump, now, 3)
    assert resent() == 0
