from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from app.outbox import BrokerUnavailableError
from app.outbox.broker import OutboxMessage
from loadtests import _work
from loadtests._ledger import Ledger
from loadtests._publishing import NotingBroker, publish
from tests.fakes import FakeBroker, FakeClock

TRACE = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeBroker:
    return FakeBroker(FakeClock.install(monkeypatch, datetime(2026, 7, 1, 12, tzinfo=UTC)))


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(TRACE, lambda *_: None)


def test_a_booking_is_published_with_the_brokers_stamp_and_the_tests_trace(
    fake: FakeBroker, ledger: Ledger
) -> None:
    ids = publish(NotingBroker(fake, ledger), _work.BOOKING, trace_id=TRACE)
    assert [message.id for message in fake.pushed] == ids
    assert {message.published_at for message in fake.pushed} == {fake.clock.now}
    assert {message.trace_id for message in fake.pushed} == {TRACE}
    assert [(message.queue, message.priority) for message in fake.pushed] == [
        ("bookings", 2),
        ("email", 4),
        ("notifications", 4),
    ]
    assert ledger.still_waiting(ids) == set(ids)
    assert ledger.published == {"bookings": 1, "email": 1, "notifications": 1}


def test_what_could_not_be_published_is_not_waited_for(fake: FakeBroker, ledger: Ledger) -> None:
    fake.fails_after_push = True
    with pytest.raises(BrokerUnavailableError):
        publish(NotingBroker(fake, ledger), _work.PASSWORD_RESET, trace_id=TRACE)
    assert not ledger.waiting


class Interrupted(FakeBroker):
    def push(self, messages: Sequence[OutboxMessage]) -> None:
        raise KeyboardInterrupt


def test_what_ctrl_c_kept_from_being_published_is_not_waited_for(
    fake: FakeBroker, ledger: Ledger
) -> None:
    broker = NotingBroker(Interrupted(fake.clock), ledger)
    with pytest.raises(KeyboardInterrupt):
        publish(broker, _work.PASSWORD_RESET, trace_id=TRACE)
    assert not ledger.waiting
