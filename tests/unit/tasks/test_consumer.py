"""Task events go out together; a dead letter that cannot be written now is written later."""

import sqlite3
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from psycopg.errors import LockNotAvailable
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from app.outbox.guard import Delivery
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


class Timer:
    """Keeps what is to be called later."""

    def __init__(self) -> None:
        self.planned: list[Callable[[], None]] = []

    def call_after(self, _seconds: float, callback: Callable[[], None]) -> None:
        self.planned.append(callback)


class Letter:
    """A dead letter that is written when the database raises nothing any more."""

    def __init__(self, error: Exception) -> None:
        self.error: Exception | None = error
        self.tries = 0

    def __call__(self, _session: Any, _delivery: Delivery) -> bool:
        self.tries += 1
        if self.error is not None:
            raise OperationalError("", {}, self.error)
        return True


AWAY = sqlite3.OperationalError("database is locked")


def refuse(consumer: Any, letter: Letter) -> None:
    consumer.timer = Timer()
    consumer._record(None, Delivery("an-id", "a.task"), "unknown", letter)


@pytest.mark.parametrize(("error", "stops"), [(AWAY, True), (LockNotAvailable(), False)])
def test_a_dead_letter_whose_row_is_locked_stops_no_other_message(
    consumer: Any, database: Engine, error: Exception, stops: bool
) -> None:
    letter = Letter(error)
    refuse(consumer, letter)
    assert consumer.outage.is_on is stops
    consumer.outage.end()
    letter.error = None
    consumer.timer.planned.pop()()
    assert (letter.tries, consumer.timer.planned) == (2, [])


def test_a_held_dead_letter_waits_for_the_end_of_an_outage(consumer: Any, database: Engine) -> None:
    """To connect to a server that is away may take ten seconds of the worker's loop."""
    letter = Letter(AWAY)
    refuse(consumer, letter)
    consumer.timer.planned.pop()()
    assert letter.tries == 1
    consumer.outage.end()
    consumer.timer.planned.pop()()
    assert letter.tries == 2
