"""What a worker does beside its event loop, again and again."""

import logging
from threading import Event, Thread
from typing import Any

from celery import bootsteps, signals

from app.outbox import BrokerUnavailableError

logger = logging.getLogger(__name__)


class WorkerThread(bootsteps.StartStopStep):
    """A worker's step that calls ``repeat`` every ``interval`` seconds from a thread.

    A thread and not the worker's timer: a solo pool blocks its event loop while a task
    runs, and at a warm shutdown no loop runs while the last tasks finish. For the same
    reason it ends with the process, not when the worker's steps are stopped.
    """

    interval: float
    """Seconds; set by ``prepare``."""

    def __init__(self, worker: Any, **_options: Any) -> None:
        self.worker = worker
        self._ended = Event()

    def start(self, worker: Any) -> None:
        self.prepare()
        signals.worker_shutdown.connect(self._end)
        Thread(target=self._run, name=type(self).__name__, daemon=True).start()

    def stop(self, worker: Any) -> None:
        """Go on: the pool's last tasks are still running."""

    def prepare(self) -> None:
        """Called once, before the worker takes its first message."""
        raise NotImplementedError

    def repeat(self) -> None:
        """Called in the thread; what it raises is logged, and it is called again."""
        raise NotImplementedError

    def _run(self) -> None:
        while not self._ended.wait(self.interval):
            try:
                self.repeat()
            except BrokerUnavailableError as error:
                logger.warning("%s: %s", type(self).__name__, error)
            except Exception:
                # Without the lease long tasks run twice: a thread must live on.
                logger.exception("%s failed", type(self).__name__)

    def _end(self, **_: Any) -> None:
        self._ended.set()
