"""Records of a worker's main process, which does not wait until they are in the database.

The locks of a killed child's transaction stay until the server notices its end, and a database
may be away. So a thread tries each record again until it is written.
"""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event
from time import monotonic
from typing import Any

from celery import Celery
from celery.bootsteps import RUN  # type: ignore[attr-defined]  # celery-types lacks it

from app import db
from app.tasks.worker_thread import WorkerThread

logger = logging.getLogger(__name__)

AGAIN_SECONDS = 0.5
"""Seconds between two tries."""
LAST_SECONDS = 5.0
"""Seconds that a stopping worker waits for all its records together."""


@dataclass
class Record:
    """Something that is to be recorded."""

    what: str
    act: Callable[[], object]
    since: float
    """Seconds of a clock that never steps."""
    failures: int = 0
    over: Event = field(default_factory=Event)
    then: Callable[[], None] | None = None


_recorder: "Recorder | None" = None


def record(what: str, act: Callable[[], object], *, then: Callable[[], None] | None = None) -> None:
    """Call ``act`` until the database takes it, and then ``then``.

    ``act`` must not wait for a lock longer than ``db.briefly`` allows. In a worker this returns
    at once, and ``then`` is called in the thread of the worker's loop. In a worker that is
    stopping it returns when both are done, or after ``LAST_SECONDS``. Elsewhere ``act`` is called
    once.
    """
    if _recorder is not None:
        _recorder.add(what, act, then)
        return
    _try(Record(what, act, monotonic()))
    if then is not None:
        then()


class Recorder(WorkerThread):
    """The thread that writes what ``record`` is given."""

    def prepare(self) -> None:
        global _recorder
        self.interval = AGAIN_SECONDS
        self.unrecorded: deque[Record] = deque()
        self._stop_waiting_at: float | None = None
        _recorder = self

    def add(self, what: str, act: Callable[[], object], then: Callable[[], None] | None) -> None:
        """Take a record from the thread of the worker's loop."""
        made = Record(what, act, monotonic())
        running = self.worker.blueprint.state == RUN
        if running:
            made.then = self._with_credit(then)
        self.unrecorded.append(made)
        if running:
            return
        # No loop runs any more that could be held up, or call ``then``.
        if self._stop_waiting_at is None:
            self._stop_waiting_at = monotonic() + LAST_SECONDS
        if made.over.wait(max(0.0, self._stop_waiting_at - monotonic())) and then is not None:
            then()

    def repeat(self) -> None:
        """Try all records that there are until one fails."""
        while self.unrecorded:
            tried = self.unrecorded[0]
            with db.no_fork():
                done = _try(tried)
            if not done:
                # What failed may hold up the others no longer than its own wait.
                self.unrecorded.rotate(-1)
                return
            self.unrecorded.popleft()
            tried.over.set()
            if tried.then is not None:
                self.worker.consumer.call_soon(tried.then)

    def _with_credit(self, then: Callable[[], None] | None) -> Callable[[], None] | None:
        """Take another message in place of the one that ``then`` acknowledges."""
        if then is None:
            return None
        consumer: Any = self.worker.consumer
        qos = consumer.qos
        qos.increment_eventually()

        def give_back() -> None:
            if consumer.qos is qos:  # else the connection of the message is gone
                qos.decrement_eventually()
            then()

        return give_back


def _try(tried: Record) -> bool:
    """Return whether it is over: recorded, or given up after an error of our own."""
    try:
        tried.act()
    except db.OUTAGE_ERRORS as error:
        tried.failures += 1
        if tried.failures == 1:
            logger.warning("not recorded yet: %s: %s", tried.what, db.reason(error))
        return False
    except Exception:
        logger.exception("not recorded: %s", tried.what)
        return True
    if tried.failures:
        logger.info("recorded after %.1f s: %s", monotonic() - tried.since, tried.what)
    return True


def install(app: Celery) -> None:
    """Add the recorder to the workers of ``app``."""
    app.steps["worker"].add(Recorder)
