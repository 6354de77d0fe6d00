from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from app import outbox
from app.outbox.pump import Pump
from tests.fakes import FakeBroker, FakeClock

MARGIN = timedelta(seconds=10)
MAX_PUBLISHES = 3


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    return FakeClock.install(monkeypatch, datetime(2026, 7, 1, 12, tzinfo=UTC))


@pytest.fixture(autouse=True)
def _no_registry() -> Iterator[None]:
    """The outbox alone, as in a process that has not imported the tasks."""
    attached_before = outbox.check_calls(None)
    yield
    outbox.check_calls(attached_before)


@pytest.fixture
def broker(now: FakeClock) -> Iterator[FakeBroker]:
    fake = FakeBroker(now)
    attached_before = outbox.attach(fake)
    yield fake
    outbox.attach(attached_before)


@pytest.fixture
def pump(database: Engine, broker: FakeBroker) -> Pump:
    return Pump(database, broker, margin=MARGIN, max_publishes=MAX_PUBLISHES)
