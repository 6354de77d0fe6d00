from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from app import db, outbox
from app.services import queues
from app.services.queues import UnknownQueueError

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)


def pause(*names: str, now: datetime = NOW) -> list[str]:
    with db.transaction() as session:
        return queues.pause(session, names, now=now)


def paused() -> list[str]:
    with db.reading() as session:
        return list(queues.paused(session))


def test_a_queue_is_paused_once_and_keeps_its_first_instant(database: Engine) -> None:
    assert pause("email", "cache", "email") == ["cache", "email"]
    assert pause("email", now=NOW + timedelta(hours=1)) == []
    with db.reading() as session:
        assert queues.paused(session) == {"cache": NOW, "email": NOW}


def test_a_resumed_queue_is_not_paused(database: Engine) -> None:
    pause("email", "cache")
    with db.transaction() as session:
        assert queues.resume(session, ["email", "bookings"]) == ["email"]
    assert paused() == ["cache"]


def test_an_unknown_queue_changes_nothing_and_is_told_the_known_ones(database: Engine) -> None:
    with pytest.raises(UnknownQueueError, match=r"no queue 'emial': did you mean 'email'\?"):
        pause("email", "emial")
    with pytest.raises(UnknownQueueError, match=r"no queue 'xyz': choose from analytics, bookings"):
        pause("xyz")
    with pytest.raises(UnknownQueueError), db.transaction() as session:
        queues.resume(session, ["emial"])
    assert pause() == paused() == []


def test_pending_entries_of_a_queue_are_counted(database: Engine) -> None:
    with db.transaction() as session:
        outbox.enqueue(session, "app.tasks.email.deliver", [1])
        outbox.enqueue(session, "app.tasks.email.deliver", [2], at=NOW + timedelta(days=400))
        outbox.enqueue(session, "app.tasks.cache.update_availability")
    with db.reading() as session:
        assert queues.pending(session, "email") == 2
