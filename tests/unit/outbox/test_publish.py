from itertools import count

import pytest
from sqlalchemy import Engine, select

from app import db, outbox
from app.models import OutboxEntry, OutboxState
from app.outbox import publish
from app.settings import load_settings
from tests.database import on_sqlite
from tests.fakes import FakeBroker, FakeClock
from tests.query_plans import plans_of

TASK = "app.tasks.email.send_booking_confirmation"


def enqueue() -> str:
    with db.transaction() as session:
        return outbox.enqueue(session, TASK)


def the_entry() -> OutboxEntry:
    with db.reading() as session:
        return session.scalars(select(OutboxEntry)).one()


def test_a_stamp_that_the_database_made_old_is_not_pushed(
    database: Engine, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pushed late, the message would lie behind others with a younger stamp."""
    slow = count(step=load_settings().resend_margin_seconds / 2 + 1)
    monkeypatch.setattr(publish, "monotonic", lambda: next(slow))
    enqueue()
    assert broker.pushed == []
    assert (the_entry().published_at, the_entry().publishes) == (None, 0)


def test_of_two_publishers_one_pushes(database: Engine, broker: FakeBroker) -> None:
    broker.down = True
    entry_id = enqueue()
    broker.down = False
    chosen = OutboxEntry.id == entry_id
    pushed = [publish.publish_unpublished(database, broker, chosen) for _ in range(2)]
    assert pushed == [1, 0]


def test_of_two_that_saw_the_same_message_gone_one_resends(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    entry_id = enqueue()
    stamp = the_entry().published_at
    assert stamp is not None
    now.advance(seconds=20)
    gone = [(entry_id, stamp)]
    assert [publish.publish_again(database, broker, gone) for _ in range(2)] == [1, 0]


@on_sqlite
def test_on_sqlite_lost_messages_are_republished_without_reading_the_table(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    gone = [(enqueue(), now.now) for _ in range(2)]
    with plans_of(database) as plans:
        assert publish.publish_again(database, broker, gone) == 2
    steps = [step for plan in plans for step in plan if "outbox_entries" in step]
    assert steps
    assert all("(id=?)" in step for step in steps), steps


def test_what_was_cancelled_meanwhile_is_not_pushed(database: Engine, broker: FakeBroker) -> None:
    broker.down = True
    with db.transaction() as session:
        outbox.enqueue(session, TASK, key="reminder:42")
    with db.transaction() as session:
        outbox.cancel(session, key="reminder:42")
    broker.down = False
    assert publish.publish_unpublished(database, broker, OutboxEntry.id.is_not(None)) == 0
    assert the_entry().state is OutboxState.CANCELLED


def test_a_process_without_a_broker_leaves_publishing_to_the_pump(database: Engine) -> None:
    attached_before = outbox.attach(None)
    try:
        enqueue()
    finally:
        outbox.attach(attached_before)
    assert the_entry().published_at is None
