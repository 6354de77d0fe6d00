from datetime import datetime, timedelta

import pytest
from celery import Celery
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from app import db, outbox, routing
from app.domain.nesting import DEEPEST
from app.models import OutboxEntry, OutboxState
from app.settings import load_settings
from tests.fakes import FakeBroker, FakeClock

TASK = "app.tasks.email.send_booking_confirmation"


def entries() -> list[OutboxEntry]:
    with db.reading() as session:
        return list(session.scalars(select(OutboxEntry).order_by(OutboxEntry.id)))


def test_a_committed_entry_is_published_under_its_id(database: Engine, broker: FakeBroker) -> None:
    with db.transaction() as session:
        entry_id = outbox.enqueue(session, TASK, 42)
        assert broker.pushed == []
    (message,) = broker.pushed
    assert (message.id, message.task, message.args) == (entry_id, TASK, [42])
    assert (message.queue, message.priority) == ("email", routing.wire_priority(5))
    (entry,) = entries()
    assert (entry.published_at, entry.publishes) == (message.published_at, 1)


def test_a_rollback_leaves_nothing_and_publishes_nothing(
    database: Engine, broker: FakeBroker
) -> None:
    with pytest.raises(ZeroDivisionError), db.transaction() as session:
        outbox.enqueue(session, TASK, 42)
        raise ZeroDivisionError
    assert (entries(), broker.pushed) == ([], [])


def test_nothing_is_published_before_the_outermost_commit(
    database: Engine, broker: FakeBroker
) -> None:
    with db.transaction() as session:
        with session.begin_nested():
            outbox.enqueue(session, TASK, 1)
        assert broker.pushed == []
    assert len(broker.pushed) == 1


def test_a_rolled_back_savepoint_publishes_nothing(database: Engine, broker: FakeBroker) -> None:
    with db.transaction() as session:
        with pytest.raises(ZeroDivisionError), session.begin_nested():
            outbox.enqueue(session, TASK, 1)
            raise ZeroDivisionError
        outbox.enqueue(session, TASK, 2)
    assert [message.args for message in broker.pushed] == [[2]]


def test_a_session_of_the_callers_own_publishes_too(database: Engine, broker: FakeBroker) -> None:
    session = Session(database)
    outbox.enqueue(session, TASK, 1)
    session.commit()
    outbox.enqueue(session, TASK, 2)
    session.rollback()
    session.close()
    assert [message.args for message in broker.pushed] == [[1]]


def test_the_booking_succeeds_while_the_broker_is_away(
    database: Engine, broker: FakeBroker
) -> None:
    broker.down = True
    with db.transaction() as session:
        outbox.enqueue(session, TASK, 42)
    (entry,) = entries()
    assert (entry.state, entry.published_at, entry.publishes) == (OutboxState.PENDING, None, 0)


def test_after_a_failure_the_process_asks_the_broker_no_more_for_a_while(
    database: Engine, broker: FakeBroker
) -> None:
    broker.down = True
    with db.transaction() as session:
        outbox.enqueue(session, TASK, 1)
    broker.down = False
    with db.transaction() as session:
        outbox.enqueue(session, TASK, 2)
    assert broker.pushed == []


def test_an_entry_for_later_waits_for_the_pump(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    with db.transaction() as session:
        outbox.enqueue(session, TASK, 42, at=now.now + timedelta(hours=1))
    assert broker.pushed == []


def test_a_key_makes_one_entry(database: Engine, broker: FakeBroker) -> None:
    with db.transaction() as session:
        first = outbox.enqueue(session, TASK, 1, key="reminder:42")
    with db.transaction() as session:
        second = outbox.enqueue(session, TASK, 2, key="reminder:42")
    assert first == second
    assert [message.args for message in broker.pushed] == [[1]]


def test_a_cancelled_entry_gives_its_key_free(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    later = now.now + timedelta(hours=1)
    with db.transaction() as session:
        first = outbox.enqueue(session, TASK, 1, at=later, key="reminder:42")
        assert outbox.cancel(session, key="reminder:42")
        assert not outbox.cancel(session, key="reminder:42")
        assert outbox.enqueue(session, TASK, 1, at=later, key="reminder:42") != first


def test_urgency_of_the_call_overrides_the_queues(database: Engine, broker: FakeBroker) -> None:
    with db.transaction() as session:
        outbox.enqueue(session, TASK, 1, urgency=8)
    assert broker.pushed[0].priority == 1


def test_ids_sort_in_the_order_of_their_time(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    ids = []
    for _ in range(20):
        with db.transaction() as session:
            ids.append(outbox.enqueue(session, TASK))
        now.advance(milliseconds=1)
    assert ids == sorted(ids)
    assert all(entry_id[14] == "7" for entry_id in ids)


def nested(depth: int) -> list[object]:
    value: list[object] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def test_arguments_nested_deeper_than_a_worker_takes_are_refused(database: Engine) -> None:
    """Such a message would be a dead letter, or stop the relay at the limit of recursion."""
    deepest = DEEPEST - 1  # inside the list of arguments
    with db.transaction() as session:
        for depth in (deepest + 1, 950, 100_000):
            with pytest.raises(TypeError, match=rf"{TASK} are (nested deeper than|not JSON)"):
                outbox.enqueue(session, TASK, nested(depth))
        outbox.enqueue(session, TASK, nested(deepest))
    assert len(entries()) == 1


def test_arguments_larger_than_the_limit_are_refused(
    database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = load_settings().max_argument_bytes
    with db.transaction() as session:
        with pytest.raises(ValueError, match=rf"are {limit + 10:,} bytes .* at most {limit:,}"):
            outbox.enqueue(session, TASK, "x" * limit)
        outbox.enqueue(session, TASK, "x" * (limit - 10))
    assert len(entries()) == 1


def test_arguments_that_are_not_json_are_refused(database: Engine, now: FakeClock) -> None:
    with db.transaction() as session:
        for wrong in (now.now, {1, 2}, object(), float("nan")):
            with pytest.raises(TypeError, match="not JSON"):
                outbox.enqueue(session, TASK, wrong)
    assert entries() == []


def test_signatures_are_refused(database: Engine) -> None:
    signature = Celery(set_as_current=False).signature("some.task")
    with db.transaction() as session:
        with pytest.raises(TypeError, match="takes a task's name"):
            outbox.enqueue(session, signature)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="Celery signature"):
            outbox.enqueue(session, TASK, signature)


def test_a_naive_instant_is_refused(database: Engine) -> None:
    with db.transaction() as session, pytest.raises(TypeError, match="aware"):
        outbox.enqueue(session, TASK, at=datetime(2026, 1, 1))  # noqa: DTZ001


def test_an_urgency_out_of_range_is_refused(database: Engine) -> None:
    with db.transaction() as session, pytest.raises(ValueError, match="between 0 and 9"):
        outbox.enqueue(session, TASK, urgency=10)


def test_an_empty_key_is_refused(database: Engine) -> None:
    with (
        pytest.raises(ValueError, match=f"the key of {TASK} is empty"),
        db.transaction() as session,
    ):
        outbox.enqueue(session, TASK, key="")
    assert entries() == []


def test_a_key_that_another_tasks_entry_has_is_refused(
    database: Engine, broker: FakeBroker
) -> None:
    other = "app.tasks.cache.update_availability"
    with db.transaction() as session:
        outbox.enqueue(session, TASK, key="42")
    refusal = f"the key '42' of {other} is taken by an entry of {TASK}"
    with pytest.raises(ValueError, match=refusal), db.transaction() as session:
        outbox.enqueue(session, other, key="42")
