"""How late this process is with what it is to do."""

from __future__ import annotations

import time
from threading import Event, Thread

INTERVAL_SECONDS = 0.05


class Lateness:
    """A thread (under locust a greenlet) that wakes up now and then, and notes how much too late.

    A message is stamped and then pushed. Where others take the processor in between, its
    wait seems longer than it was: so a load test must say when it could not keep up.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        """The most that it was late."""
        self._stopping = Event()
        self._thread = Thread(target=self._watch, name="load test: lateness", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(1.0)

    def _watch(self) -> None:
        while not self._stopping.is_set():
            began = time.monotonic()
            time.sleep(INTERVAL_SECONDS)
            self.seconds = max(self.seconds, time.monotonic() - began - INTERVAL_SECONDS)
