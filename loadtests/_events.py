"""Hearing the workers' events while a load test runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from threading import Event, Thread
from typing import Any
from uuid import uuid4

from celery import Celery
from celery.events import EventReceiver

from loadtests._errors import LoadTestError
from loadtests._ledger import EVENTS

logger = logging.getLogger("loadtests")

GREETING = "loadtest-greeting"
"""A type of event that no monitor knows, so none shows it."""
GREETED_SECONDS = 10.0
AGAIN_SECONDS = 1.0


class Receiver(EventReceiver):
    """Celery's, which leaves a worker's timestamp as it is.

    Celery takes it for local time, and moves it by the difference of the two machines' time
    zones; but it is seconds since the epoch.
    """

    def event_from_message(self, body: Any, *_: Any, **__: Any) -> Any:
        return super().event_from_message(body, localize=False)


class Listener:
    """A thread (under locust a greenlet) that gives each event of a task to ``hear``.

    What happens while its connection is lost is not heard.
    """

    def __init__(self, app: Celery, hear: Callable[[Mapping[str, Any]], None]) -> None:
        self.gaps = 0
        """How often the connection was lost."""
        self._app = app
        self._hear = hear
        self._greeting = uuid4().hex
        self._greeted = Event()
        self._stopping = Event()
        self._receiver: Receiver | None = None
        self._thread = Thread(target=self._listen, name="load test: events", daemon=True)

    def start(self) -> None:
        """Returns when events are heard. Raises ``LoadTestError`` where none comes through."""
        self._thread.start()
        deadline = time.monotonic() + GREETED_SECONDS
        with self._app.events.default_dispatcher() as dispatcher:
            while not self._greeted.wait(0.1):
                if time.monotonic() > deadline:
                    self.stop()
                    raise LoadTestError(
                        f"no event came through Redis in {GREETED_SECONDS:g} s: without them "
                        "nothing can be measured; may this login use Redis's pub/sub?"
                    )
                dispatcher.send(GREETING, greeting=self._greeting)

    def stop(self) -> None:
        self._stopping.set()
        if self._receiver is not None:
            self._receiver.should_stop = True
        self._thread.join(GREETED_SECONDS)

    def _listen(self) -> None:
        while not self._stopping.is_set():
            try:
                with self._app.connection_for_read() as connection:
                    handlers = dict.fromkeys(EVENTS, self._hear) | {GREETING: self._greet}
                    self._receiver = Receiver(connection, handlers=handlers, app=self._app)
                    self._receiver.capture(wakeup=False)
            except Exception as error:
                if self._stopping.is_set():
                    return
                self.gaps += 1
                logger.warning("events are not heard for a moment: %s", error)
                time.sleep(AGAIN_SECONDS)

    def _greet(self, event: Mapping[str, Any]) -> None:
        if event.get("greeting") == self._greeting:
            self._greeted.set()
