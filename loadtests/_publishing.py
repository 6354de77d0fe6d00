"""The one way from a load test to the broker, which keeps the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app import clock, entropy
from app.outbox.broker import Broker, OutboxMessage
from app.outbox.ids import uuid7
from loadtests._ledger import Ledger
from loadtests._work import Call


class NotingBroker:
    """A broker that tells the ledger of each message before it is pushed."""

    def __init__(self, broker: Broker, ledger: Ledger) -> None:
        self._broker = broker
        self._ledger = ledger

    def push(self, messages: Sequence[OutboxMessage]) -> None:
        for message in messages:
            self._ledger.expect([message.id], message.queue, published_at=message.published_at)
        try:
            self._broker.push(messages)
        except BaseException:  # Ctrl-C comes in any greenlet
            self._ledger.forget([message.id for message in messages])
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)


def publish(broker: Broker, calls: Sequence[Call], *, trace_id: str) -> list[str]:
    """Publish messages like those of the outbox, of which no outbox has an entry; their ids.

    A worker takes each, looks for its entry in the database, finds none and skips it: the
    broker and the workers are loaded, and nothing is done. Raises ``BrokerUnavailableError``.
    """
    stamp = broker.now()
    messages = [
        OutboxMessage(
            id=uuid7(clock.utcnow(), entropy.rng()),
            task=call.task,
            args=list(call.args),
            kwargs={},
            queue=call.queue,
            priority=call.priority,
            tries=0,
            published_at=stamp,
            trace_id=trace_id,
        )
        for call in calls
    ]
    broker.push(messages)
    return [message.id for message in messages]
