from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from celery import states

from app import db, outbox
from app.models import OutboxState
from app.settings import Settings
from app.tasks import cache
from simulations.marketplace.slot_cache import MemorySlotCache
from tests.builders import a_service
from tests.fakes import FakeBroker
from tests.tracing import Outcome, deliver
from tests.unit.tasks.conftest import entry


@pytest.fixture
def slots(monkeypatch: pytest.MonkeyPatch) -> MemorySlotCache:
    fake = MemorySlotCache()

    @contextmanager
    def opened(settings: Settings) -> Iterator[MemorySlotCache]:
        yield fake

    monkeypatch.setattr(cache, "slot_cache_from", opened)
    return fake


def run(broker: FakeBroker, *args: bool) -> tuple[str, Outcome]:
    with db.transaction() as session:
        outbox.enqueue(session, cache.update_availability.name, *args)
    message = broker.pushed[-1]
    return message.id, deliver(cache.update_availability, message)


def test_the_task_tells_how_many_entries_it_wrote(
    broker: FakeBroker, slots: MemorySlotCache
) -> None:
    with db.transaction() as session:
        a_service(session)
    first_id, first = run(broker)
    assert first.result == {"full": True, "written": 1, "superseded": 0, "deleted": 0}
    assert entry(first_id).state is OutboxState.DONE
    assert run(broker)[1].result["written"] == 0
    assert run(broker, True)[1].result["written"] == 1


def test_a_cache_that_is_away_is_tried_again_later(
    broker: FakeBroker, slots: MemorySlotCache
) -> None:
    slots.down = True
    entry_id, outcome = run(broker)
    assert outcome.state == states.RETRY
    assert (entry(entry_id).state, entry(entry_id).tries) == (OutboxState.PENDING, 1)
