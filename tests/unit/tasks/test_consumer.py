"""Task events go out together."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from app.tasks.consumer import EVENTS_WAIT_SECONDS, OutboxConsumer


class Hub:
    """Keeps what is to be called later."""

    def __init__(self) -> None:
        self.planned: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        self.planned.append((delay, callback))


@pytest.fixture
def consumer() -> Any:
    made: Any = OutboxConsumer.__new__(OutboxConsumer)
    made.hub = Hub()
    made.flushes = 0

    def flush() -> None:
        made.flushes += 1

    made.event_dispatcher = SimpleNamespace(flush=flush)
    made.blueprint = SimpleNamespace(stop=lambda _consumer: None)
    return made


def test_events_of_a_short_while_are_sent_together(consumer: Any) -> None:
    for _ in range(5):
        consumer.on_send_event_buffered()
    [(delay, send)] = consumer.hub.planned
    assert (delay, consumer.flushes) == (EVENTS_WAIT_SECONDS, 0)
    send()
    assert consumer.flushes == 1


def test_events_that_come_after_that_are_sent_too(consumer: Any) -> None:
    consumer.on_send_event_buffered()
    consumer.hub.planned.pop()[1]()
    consumer.on_send_event_buffered()
    assert len(consumer.hub.planned) == 1


def test_a_worker_that_stops_sends_what_waits(consumer: Any) -> None:
    consumer.on_send_event_buffered()
    consumer.stop()
    assert consumer.flushes == 1


def test_a_pool_without_an_event_loop_has_nothing_to_wait_for(consumer: Any) -> None:
    consumer.hub = None
    consumer.on_send_event_buffered()
    assert consumer.flushes == 0
