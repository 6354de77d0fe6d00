"""Dead letters: found, run again under their own id, and thrown away."""

from datetime import timedelta

import pytest
from sqlalchemy import Engine, select, update

from app import db, outbox
from app.models import OutboxEntry, OutboxState
from app.outbox import dead_letters, guard, publish
from app.outbox.dead_letters import Retried, UnknownEntriesError
from app.outbox.guard import AlreadyDoneError, Delivery
from app.outbox.pump import Pump
from tests.fakes import FakeBroker, FakeClock

TASK = "app.tasks.email.send_booking_confirmation"
OTHER = "app.tasks.bookings.send_due_reminders"
MICROSECOND = timedelta(microseconds=1)


def enqueue(task: str = TASK, *args: object, key: str | None = None) -> str:
    with db.transaction() as session:
        return outbox.enqueue(session, task, *args, key=key)


def dead(now: FakeClock, task: str = TASK, *args: object, key: str | None = None) -> str:
    """An entry that failed in its second try, as a worker would leave it."""
    entry_id = enqueue(task, *args, key=key)
    with db.transaction() as session:
        first = Delivery(entry_id, task)
        assert guard.put_back(session, first, due_at=now.now, error="first", now=now.now)
        second = Delivery(entry_id, task, tries=1)
        assert guard.bury(session, second, error="last", now=now.now, traceback="where")
    return entry_id


def finish(entry_id: str, now: FakeClock, task: str = TASK) -> None:
    with db.transaction() as session:
        guard.mark_done(session, Delivery(entry_id, task), now=now.now)


def retry(now: FakeClock, *entry_ids: str) -> Retried:
    with db.transaction() as session:
        return dead_letters.retry(session, entry_ids, now=now.now)


def entry(entry_id: str) -> OutboxEntry:
    with db.reading() as session:
        return session.scalars(select(OutboxEntry).where(OutboxEntry.id == entry_id)).one()


def contents() -> list[dict[str, object]]:
    with db.reading() as session:
        rows = session.execute(select(*OutboxEntry.__table__.columns).order_by(OutboxEntry.id))
        return [dict(row._mapping) for row in rows]


def test_the_latest_death_is_listed_first_and_the_living_never(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    first = dead(now)
    now.advance(seconds=1)
    second = dead(now, OTHER)
    enqueue()
    with db.reading() as session:
        found = dead_letters.find(session)
    assert [letter.id for letter in found] == [second, first]


def test_a_list_is_of_one_task_and_since_an_instant_where_asked(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    early, other = dead(now), dead(now, OTHER)
    died_at = now.now
    now.advance(hours=1)
    late = dead(now)
    with db.reading() as session:

        def ids(**chosen: object) -> set[str]:
            return {letter.id for letter in dead_letters.find(session, **chosen)}  # type: ignore[arg-type]

        assert ids(task=TASK) == {early, late}
        assert ids(since=died_at) == {early, other, late}
        assert ids(since=died_at + MICROSECOND) == {late}
        assert ids(task=OTHER, since=died_at + MICROSECOND) == set()
        assert ids(limit=1) == {late}
        assert dead_letters.count(session) == {TASK: 2, OTHER: 1}
        assert dead_letters.count(session, since=died_at + MICROSECOND) == {TASK: 1}


def test_a_retried_letter_waits_under_its_id_with_a_fresh_budget_and_its_errors(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    entry_id = dead(now)
    now.advance(hours=1)
    assert retry(now, entry_id) == Retried([entry_id])
    again = entry(entry_id)
    assert again.state is OutboxState.PENDING
    assert (again.due_at, again.published_at, again.finished_at) == (now.now, None, None)
    assert (again.tries, again.publishes, again.deliveries) == (0, 0, 0)
    assert [error["error"] for error in again.errors] == ["first", "last"]


def test_the_pump_publishes_a_retried_letter_at_its_next_round(
    database: Engine, broker: FakeBroker, now: FakeClock, pump: Pump
) -> None:
    entry_id = dead(now)
    now.advance(hours=1)
    retry(now, entry_id)
    before = len(broker.pushed)
    assert pump.run().published == 1
    (message,) = broker.pushed[before:]
    assert (message.id, message.tries) == (entry_id, 0)


def test_a_process_with_a_broker_publishes_a_retried_letter_at_once(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    entry_id = dead(now)
    before = len(broker.pushed)
    publish.after_commit(database, retry(now, entry_id).retried)
    assert [message.id for message in broker.pushed[before:]] == [entry_id]


def test_the_effect_of_a_retried_letter_happens_once(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    entry_id = dead(now)
    retry(now, entry_id)
    finish(entry_id, now)
    with pytest.raises(AlreadyDoneError):
        finish(entry_id, now)


def test_retrying_twice_changes_nothing(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    entry_id = dead(now)
    retry(now, entry_id, entry_id)
    once = contents()
    now.advance(minutes=1)
    assert retry(now, entry_id) == Retried([], {entry_id: OutboxState.PENDING})
    assert contents() == once


def test_what_is_done_or_cancelled_is_not_retried(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    done, cancelled = enqueue(), enqueue()
    finish(done, now)
    with db.transaction() as session:
        guard.cancel(session, cancelled, now=now.now)
    before = contents()
    assert retry(now, done, cancelled) == Retried(
        [], {done: OutboxState.DONE, cancelled: OutboxState.CANCELLED}
    )
    assert contents() == before


def test_an_unknown_id_among_others_leaves_all_as_they_are(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    entry_id = dead(now)
    before = contents()
    with pytest.raises(UnknownEntriesError, match="nobody") as caught:
        retry(now, entry_id, "nobody")
    assert caught.value.ids == ["nobody"]
    assert contents() == before


def test_more_ids_than_one_statement_takes_are_retried(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    ids = [dead(now, TASK, number) for number in range(dead_letters.BATCH // 100)]
    strangers = [f"stranger-{number}" for number in range(2 * dead_letters.BATCH)]
    with pytest.raises(UnknownEntriesError):
        retry(now, *strangers, *ids)
    assert retry(now, *ids).retried == ids


def test_all_of_a_task_are_retried_in_batches_and_none_that_died_meanwhile(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    dead_now = [dead(now) for _ in range(3)]
    other = dead(now, OTHER)
    until = now.now
    now.advance(seconds=1)
    late = dead(now)

    def batch() -> list[str]:
        with db.transaction() as session:
            return dead_letters.retry_all(session, TASK, until=until, now=now.now, limit=2)

    batches = [batch(), batch(), batch()]
    assert [len(ids) for ids in batches] == [2, 1, 0]
    assert {entry_id for ids in batches for entry_id in ids} == set(dead_now)
    assert {entry(left).state for left in (other, late)} == {OutboxState.DEAD}


def test_a_purge_deletes_what_died_before_and_nothing_else(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    died_at = now.now
    old = {dead(now), dead(now, OTHER), dead(now)}
    done, pending = enqueue(), enqueue()
    finish(done, now)
    now.advance(seconds=1)
    young = dead(now)

    def purge(limit: int = 2) -> int:
        with db.transaction() as session:
            return dead_letters.purge(session, before=died_at + MICROSECOND, limit=limit)

    with db.transaction() as session:
        assert dead_letters.purge(session, before=died_at) == 0
    assert [purge(), purge(), purge()] == [2, 1, 0]
    assert {row["id"] for row in contents()} == {done, pending, young}
    assert not old & {row["id"] for row in contents()}


def test_a_purged_letter_gives_its_key_free(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    gone = dead(now, key="reminder:42")
    assert enqueue(key="reminder:42") == gone
    with db.transaction() as session:
        dead_letters.purge(session, before=now.now + MICROSECOND)
    assert enqueue(key="reminder:42") != gone


def test_a_retried_dead_letter_is_not_taken_for_one_that_was_retrying_all_the_time(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    entry_id = dead(now)
    with db.transaction() as session:
        session.execute(update(OutboxEntry).values(waits_for="rate limit 6/m"))
    now.advance(days=1)
    retry(now, entry_id)
    assert (entry(entry_id).retrying_since, entry(entry_id).waits_for) == (None, None)
    with db.transaction() as session:
        guard.put_back(session, Delivery(entry_id, TASK), due_at=now.now, error="x", now=now.now)
    assert entry(entry_id).retrying_since == now.now
