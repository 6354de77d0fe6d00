"""Pending entries that an operator cancels or makes due, beside running tasks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from app import clock, db, outbox
from app.models import OutboxEntry, OutboxState
from app.outbox import dead_letters, guard, pending
from app.outbox.guard import Delivery
from tests.database import on_postgresql

TASK = "app.tasks.email.deliver"
NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)


def enqueue(*args: object, task: str = TASK, at: datetime | None = None) -> str:
    with db.transaction() as session:
        return outbox.enqueue(session, task, *args, at=at, unchecked=True)


def failed(*args: object) -> str:
    """An entry whose first attempt failed and whose next one is due in a while."""
    entry_id = enqueue(*args)
    with db.transaction() as session:
        due_at = clock.utcnow() + timedelta(minutes=5)
        delivery = Delivery(entry_id, TASK)
        assert guard.put_back(session, delivery, due_at=due_at, error="first", now=NOW)
    return entry_id


def dead(*args: object) -> str:
    entry_id = enqueue(*args)
    with db.transaction() as session:
        assert guard.bury(session, Delivery(entry_id, TASK), error="last", now=NOW)
    return entry_id


def in_state(state: OutboxState) -> set[str]:
    with db.reading() as session:
        return set(session.scalars(select(OutboxEntry.id).where(OutboxEntry.state == state)))


@contextmanager
def locked(entry_id: str, database: Engine) -> Iterator[None]:
    """Lock the row as a running task does that has marked its entry."""
    with Session(database) as task, task.begin():
        task.execute(select(OutboxEntry.id).where(OutboxEntry.id == entry_id).with_for_update())
        yield


def impatiently(act: Callable[[Session], list[str]]) -> list[str]:
    """What ``act`` returns; it raises where it waits for a row's lock."""
    with db.transaction() as session:
        session.execute(text("SET LOCAL lock_timeout = '500ms'"))
        return act(session)


def test_pending_entries_are_cancelled_in_batches(database: Engine) -> None:
    mine = {enqueue(1), enqueue(2), enqueue(3), enqueue(4, at=clock.utcnow() + timedelta(days=400))}
    other = enqueue(task="app.tasks.cache.update_availability")
    until = clock.utcnow()
    newer = enqueue(5)
    batches = []
    for _ in range(3):
        with db.transaction() as session:
            batches.append(
                pending.cancel_batch(
                    session, OutboxEntry.queue == "email", until=until, now=NOW, limit=3
                )
            )
    assert [len(batch) for batch in batches] == [3, 1, 0]
    assert in_state(OutboxState.CANCELLED) == mine
    assert in_state(OutboxState.PENDING) == {other, newer}


@on_postgresql
def test_an_entry_that_a_running_task_has_marked_is_not_waited_for(database: Engine) -> None:
    running, *others = [enqueue(number) for number in range(4)]

    def cancel(session: Session) -> list[str]:
        return pending.cancel_batch(
            session, OutboxEntry.task == TASK, until=clock.utcnow(), now=NOW, limit=2
        )

    with locked(running, database):
        batches = [impatiently(cancel) for _ in range(3)]
    assert [len(batch) for batch in batches] == [2, 1, 0]
    assert in_state(OutboxState.CANCELLED) == set(others)


@on_postgresql
@pytest.mark.parametrize(
    ("make", "act"),
    [
        (failed, lambda session: pending.attempt_all_now(session, TASK, now=clock.utcnow())),
        (
            dead,
            lambda session: dead_letters.retry_all(
                session, TASK, until=clock.utcnow(), now=clock.utcnow()
            ),
        ),
    ],
    ids=["attempt_all_now", "retry_all"],
)
def test_an_entry_that_another_operator_changes_is_not_waited_for(
    database: Engine,
    make: Callable[[], str],
    act: Callable[[Session], list[str]],
) -> None:
    held, *others = [make() for _ in range(3)]
    with locked(held, database):
        assert set(impatiently(act)) == set(others)
