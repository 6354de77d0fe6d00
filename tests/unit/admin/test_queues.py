"""What an operator sees of the queues, and pauses."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import Engine, event

from app import db, outbox
from app.models import OutboxState
from app.outbox import status
from app.routing import QUEUES
from tests.fakes import FOREIGN, FakeBroker, FakeClock
from tests.unit.admin.conftest import Admin, planned


def test_the_queues_are_listed_with_what_is_due_and_what_is_paused(
    admin: Admin, database: Engine, now: FakeClock
) -> None:
    planned()
    admin("queues", "pause", "email")
    now.advance(minutes=5)
    answer = admin("queues", "list")
    assert answer.lines[0] == f"{len(QUEUES)} queues, 1 paused"
    (row,) = (line.split() for line in answer.lines if line.startswith("email"))
    assert row == ["email", "5", "1", "paused", "for", "5m"]
    listed = {row["queue"]: row for row in admin("queues", "list", "--json").json}
    assert next(iter(listed)) == "bookings"
    assert listed["email"]["paused_at"] == "2026-07-01T12:00:00+00:00"
    assert (listed["email"]["due"], listed["cache"]["paused_at"]) == (1, None)


def test_pausing_and_resuming_say_what_was_changed(
    admin: Admin, database: Engine, now: FakeClock
) -> None:
    assert admin("queues", "pause", "email", "cache").lines[:2] == [
        "email is paused",
        "cache is paused",
    ]
    assert admin("queues", "pause", "email").lines == ["email was paused already"]
    assert admin("queues", "resume", "email", "--json").json == {"resumed": ["email"]}
    assert admin("queues", "resume", "email").lines == ["email was not paused"]


def test_an_unknown_queue_is_one_line_with_the_known_ones(
    admin: Admin, database: Engine, now: FakeClock
) -> None:
    for action in ("pause", "resume", "purge"):
        assert "did you mean 'email'?" in admin("queues", action, "emial").err
        answer = admin("queues", action, "xyz")
        assert answer.is_one_line_of_refusal
        assert all(spec.name in answer.err for spec in QUEUES)


@pytest.fixture
def broker(database: Engine, now: FakeClock) -> Iterator[FakeBroker]:
    """A broker that holds what is due."""
    fake = FakeBroker(now)
    outbox.attach(fake)
    yield fake
    outbox.attach(None)


def state(entry_id: str) -> OutboxState:
    with db.reading() as session:
        entry = status.entry(session, entry_id)
        assert entry is not None
        return entry.state


def test_a_purge_cancels_the_entries_and_removes_the_messages(
    admin: Admin, broker: FakeBroker, now: FakeClock
) -> None:
    due, later = planned(), planned(at=now.now + timedelta(days=1))
    with db.transaction() as session:
        urgent = outbox.enqueue(session, "app.tasks.email.deliver", [1], urgency=9)
        other = outbox.enqueue(session, "app.tasks.cache.update_availability")
    broker.lists["email", 9].append(FOREIGN)
    answer = admin("queues", "purge", "email", "--yes")
    assert answer.status == 0
    assert answer.lines[0] == "email is purged: 3 entries cancelled, 3 messages removed"
    assert [state(entry) for entry in (due, later, urgent)] == [OutboxState.CANCELLED] * 3
    assert state(other) is OutboxState.PENDING
    assert [queue for (queue, _), messages in broker.lists.items() if messages] == ["cache"]


def test_a_purge_is_json_for_machines(admin: Admin, broker: FakeBroker) -> None:
    planned()
    answer = admin("queues", "purge", "email", "--yes", "--json")
    assert answer.json == {"queue": "email", "cancelled": 1, "removed": 1}


def test_what_a_worker_holds_already_is_skipped_by_the_guard(
    admin: Admin, broker: FakeBroker
) -> None:
    held = planned()
    broker.take("email")
    answer = admin("queues", "purge", "email", "--yes", "--json")
    assert answer.json == {"queue": "email", "cancelled": 1, "removed": 0}
    assert (state(held), len(broker.holding)) == (OutboxState.CANCELLED, 1)


def test_a_purge_without_confirmation_changes_nothing(
    admin: Admin, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    entry = planned()
    answer = admin("queues", "purge", "email")
    assert answer.is_one_line_of_refusal
    assert "Cancel 1 pending entry of email and remove its 1 message?" in answer.err
    assert (state(entry), broker.waiting()) == (OutboxState.PENDING, 1)


def test_an_empty_queue_is_not_asked_about(admin: Admin, broker: FakeBroker) -> None:
    answer = admin("queues", "purge", "email")
    assert (answer.status, answer.lines) == (0, ["nothing waits in email"])


def test_a_purge_without_redis_changes_nothing(admin: Admin, broker: FakeBroker) -> None:
    entry = planned()
    broker.down = True
    answer = admin("queues", "purge", "email", "--yes")
    assert answer.is_one_line_of_refusal
    assert "connection refused" in answer.err
    assert state(entry) is OutboxState.PENDING


def test_a_redis_that_goes_away_in_the_middle_leaves_messages_that_are_skipped(
    admin: Admin, broker: FakeBroker, database: Engine
) -> None:
    entry = planned()

    def fail(*_: object) -> None:
        broker.down = True

    event.listen(database, "commit", fail)
    answer = admin("queues", "purge", "email", "--yes")
    event.remove(database, "commit", fail)
    assert answer.status == 1
    assert answer.lines[0] == "email: 1 entry cancelled, its messages are left: connection refused"
    assert state(entry) is OutboxState.CANCELLED


def test_a_purge_that_redis_stopped_tells_machines_why(
    admin: Admin, broker: FakeBroker, database: Engine
) -> None:
    planned()

    def fail(*_: object) -> None:
        broker.down = True

    event.listen(database, "commit", fail)
    answer = admin("queues", "purge", "email", "--yes", "--json")
    event.remove(database, "commit", fail)
    assert answer.status == 1
    assert answer.json == {
        "queue": "email",
        "cancelled": 1,
        "removed": 0,
        "error": "connection refused",
    }
