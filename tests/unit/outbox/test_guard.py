from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Engine, select

from app import db, outbox
from app.models import OutboxEntry, OutboxState
from app.outbox import guard
from app.outbox.guard import AlreadyDoneError, Delivery
from tests.fakes import FakeBroker, FakeClock

TASK = "app.tasks.email.send_booking_confirmation"


def enqueue() -> Delivery:
    with db.transaction() as session:
        return Delivery(outbox.enqueue(session, TASK, 1), TASK)


def done(delivery: Delivery, now: FakeClock) -> bool:
    try:
        with db.transaction() as session:
            guard.mark_done(session, delivery, now=now.now)
    except AlreadyDoneError:
        return False
    return True


def entry(entry_id: str) -> OutboxEntry:
    with db.reading() as session:
        return session.scalars(select(OutboxEntry).where(OutboxEntry.id == entry_id)).one()


def test_the_second_delivery_of_a_message_has_no_effect(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    delivery = enqueue()
    assert [done(delivery, now), done(delivery, now)] == [True, False]


def test_a_rolled_back_effect_may_happen_again(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    delivery = enqueue()
    with pytest.raises(ZeroDivisionError), db.transaction() as session:
        guard.mark_done(session, delivery, now=now.now)
        raise ZeroDivisionError
    assert done(delivery, now)


def test_a_message_of_another_task_with_the_same_id_has_no_effect(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    delivery = enqueue()
    assert not done(Delivery(delivery.id, "app.tasks.other"), now)


def test_a_message_whose_entry_was_purged_is_skipped(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    assert not done(Delivery("01890000-0000-7000-8000-000000000000", TASK), now)


def test_a_message_from_elsewhere_has_its_effect_once(database: Engine, now: FakeClock) -> None:
    foreign = Delivery("a-stock-producers-id", TASK, [1], from_outbox=False)
    assert [done(foreign, now), done(foreign, now)] == [True, False]
    assert entry(foreign.id).state is OutboxState.DONE


def test_a_cancelled_entry_has_no_effect(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    with db.transaction() as session:
        delivery = Delivery(outbox.enqueue(session, TASK, key="reminder:42"), TASK)
    with db.transaction() as session:
        outbox.cancel(session, key="reminder:42")
    assert not done(delivery, now)


def test_two_failed_deliveries_of_one_try_make_one_retry(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    delivery = enqueue()
    due_at = now.now + timedelta(minutes=1)
    with db.transaction() as session:
        assert guard.put_back(session, delivery, due_at=due_at, error="first", now=now.now)
        assert not guard.put_back(session, delivery, due_at=due_at, error="second", now=now.now)
    assert entry(delivery.id).tries == 1
    assert [error["error"] for error in entry(delivery.id).errors] == ["first"]


def test_a_dead_letter_keeps_the_error_of_every_try(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    delivery = enqueue()
    with db.transaction() as session:
        guard.put_back(session, delivery, due_at=now.now, error="first", now=now.now)
        second = replace(delivery, tries=1)
        assert guard.bury(session, second, error="last", now=now.now, traceback="where")
        assert not guard.bury(session, second, error="late", now=now.now)
    dead = entry(delivery.id)
    assert dead.state is OutboxState.DEAD
    assert [error["error"] for error in dead.errors] == ["first", "last"]
    assert dead.errors[-1]["traceback"] == "where"


def test_what_is_done_never_dies(database: Engine, broker: FakeBroker, now: FakeClock) -> None:
    delivery = enqueue()
    assert done(delivery, now)
    with db.transaction() as session:
        assert not guard.bury(session, delivery, error="late", now=now.now)
        assert not guard.put_back(session, delivery, due_at=now.now, error="late", now=now.now)
    assert entry(delivery.id).state is OutboxState.DONE


def test_redeliveries_are_counted_in_their_own_transaction(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    delivery = enqueue()
    for expected in (1, 2, 3):
        with db.transaction() as session:
            assert guard.count_redelivery(session, delivery, now=now.now) == expected


def test_a_foreign_message_is_durable_from_its_first_redelivery(
    database: Engine, now: FakeClock
) -> None:
    foreign = Delivery("a-stock-producers-id", TASK, [1], {"x": 2}, from_outbox=False)
    with db.transaction() as session:
        assert guard.count_redelivery(session, foreign, now=now.now) == 1
    adopted = entry(foreign.id)
    assert (adopted.state, adopted.args, adopted.kwargs) == (OutboxState.PENDING, [1], {"x": 2})
    assert done(foreign, now)


def test_a_delivery_of_an_earlier_try_does_not_bury_the_next_one(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    delivery = enqueue()
    with db.transaction() as session:
        guard.put_back(session, delivery, due_at=now.now, error="first", now=now.now)
        assert not guard.bury(session, delivery, error="stale", now=now.now)
    assert entry(delivery.id).state is OutboxState.PENDING


def test_a_foreign_message_that_celery_retried_is_buried_after_its_adoption(
    database: Engine, now: FakeClock
) -> None:
    foreign = Delivery("a-stock-producers-id", TASK, [1], from_outbox=False)
    with db.transaction() as session:
        guard.count_redelivery(session, foreign, now=now.now)
        assert guard.bury(session, replace(foreign, tries=3), error="last", now=now.now)


def test_a_message_of_a_purged_entry_makes_no_dead_letter(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    purged = Delivery("01890000-0000-7000-8000-000000000000", TASK)
    with db.transaction() as session:
        assert not guard.bury(session, purged, error="no", now=now.now)
        assert not guard.refuse(session, purged, error="no", now=now.now)
        assert session.scalar(select(OutboxEntry)) is None


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("550 no such user <ann.lee+x@mail.example>", "550 no such user <(left out)>"),
        ("Key exists\nDETAIL:  Key (name)=(Ann Lee) exists.", "Key exists\nDETAIL:(left out)"),
        ("worker celery@ left", "worker celery@ left"),
    ],
)
def test_a_dead_letter_quotes_no_address_and_no_value(
    database: Engine, broker: FakeBroker, now: FakeClock, said: str, kept: str
) -> None:
    delivery = enqueue()
    with db.transaction() as session:
        guard.bury(session, delivery, error=said, now=now.now, traceback=said)
    (error,) = entry(delivery.id).errors
    assert (error["error"], error["traceback"]) == (kept, kept)


def test_a_broken_message_of_the_outbox_buries_the_entry_of_its_id(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    delivery = enqueue()
    broken = replace(delivery, task="app.tasks.\N{REPLACEMENT CHARACTER}", args=[])
    with db.transaction() as session:
        assert guard.refuse(session, broken, error="no task message", now=now.now)
    dead = entry(delivery.id)
    assert (dead.state, dead.task, dead.args) == (OutboxState.DEAD, TASK, [1])


def test_a_broken_message_from_elsewhere_is_one_dead_letter_however_often_it_comes(
    database: Engine, now: FakeClock
) -> None:
    foreign = Delivery("a-stock-producers-id", TASK, kwargs={"body": "list"}, from_outbox=False)
    with db.transaction() as session:
        assert guard.refuse(session, foreign, error="no task message", now=now.now)
        assert not guard.refuse(session, foreign, error="no task message", now=now.now)
    assert (entry(foreign.id).state, len(entry(foreign.id).errors)) == (OutboxState.DEAD, 1)


@pytest.mark.parametrize("from_outbox", [True, False])
def test_postponed_work_waits_in_its_entry_until_its_tries_are_used_up(
    database: Engine, broker: FakeBroker, now: FakeClock, from_outbox: bool
) -> None:
    delivery = enqueue() if from_outbox else Delivery("foreign", TASK, [1], from_outbox=False)
    due_at = now.now + timedelta(minutes=1)
    for tries in (0, 1, 2):
        with db.transaction() as session:
            again = replace(delivery, tries=tries)
            postponed = guard.postpone(
                session, again, limit=2, due_at=due_at, error=f"try {tries}", now=now.now
            )
        assert postponed is (tries < 2)
        # Whoever adopted it, from now on it comes from the outbox.
        delivery = replace(delivery, from_outbox=True)
        if postponed:
            waiting = entry(delivery.id)
            assert (waiting.state, waiting.published_at) == (OutboxState.PENDING, None)
    dead = entry(delivery.id)
    assert (dead.state, dead.args) == (OutboxState.DEAD, [1])
    assert [error["error"] for error in dead.errors] == ["try 0", "try 1", "try 2"]


def test_a_message_that_came_too_early_waits_in_its_entry_without_a_try(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    delivery = enqueue()
    due_at = now.now + timedelta(minutes=1)
    with db.transaction() as session:
        assert guard.wait(session, delivery, due_at=due_at, waits_for="rate limit 6/m")
    waits = entry(delivery.id)
    assert waits.waits_for == "rate limit 6/m"
    assert (waits.state, waits.due_at, waits.published_at) == (OutboxState.PENDING, due_at, None)
    assert (waits.tries, waits.errors) == (0, [])


def test_a_message_of_an_earlier_try_or_of_finished_work_postpones_nothing(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    delivery = enqueue()
    with db.transaction() as session:
        guard.put_back(session, delivery, due_at=now.now, error="first", now=now.now)
        due_at = now.now + timedelta(hours=1)
        assert not guard.wait(session, delivery, due_at=due_at, waits_for="rate limit 6/m")
    assert entry(delivery.id).due_at == now.now
    finished = enqueue()
    assert done(finished, now)
    with db.transaction() as session:
        assert not guard.wait(session, finished, due_at=now.now, waits_for="rate limit 6/m")
    assert entry(finished.id).state is OutboxState.DONE


def test_the_next_attempt_waits_for_nothing_yet(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    delivery = enqueue()
    with db.transaction() as session:
        guard.wait(session, delivery, due_at=now.now, waits_for="rate limit 6/m")
        guard.put_back(session, delivery, due_at=now.now, error="no", now=now.now)
    assert entry(delivery.id).waits_for is None


def test_an_entry_keeps_the_instant_at_which_its_first_attempt_failed(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    delivery = enqueue()
    assert entry(delivery.id).retrying_since is None
    first_failure = now.now
    for tries in range(3):
        attempt = replace(delivery, tries=tries)
        with db.transaction() as session:
            guard.put_back(session, attempt, due_at=now.now, error="no", now=now.now)
        now.advance(minutes=1)
    assert entry(delivery.id).retrying_since == first_failure
