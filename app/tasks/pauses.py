"""A worker takes nothing from a queue that is paused."""

import logging
from collections.abc import Iterable
from typing import Any

from celery import Celery
from sqlalchemy.exc import SQLAlchemyError

from app import db
from app.services import queues
from app.tasks.worker_thread import WorkerThread

logger = logging.getLogger(__name__)

INTERVAL_SECONDS = 2.0


class Pauses(WorkerThread):
    """Reads the table of paused queues, and stops or starts this worker's consumption.

    Only of queues that it was told to serve. What it has already taken is finished. In an
    outage of the database the worker takes nothing, and pauses stay as they are.
    """

    interval = INTERVAL_SECONDS

    def prepare(self) -> None:
        self._ours: set[str] = set()
        # The consumer has not started: it will not even ask for these.
        self.obey(pause=_paused() & self._consumed(), resume=())

    def repeat(self) -> None:
        try:
            with db.no_fork():
                paused = _paused()
        except SQLAlchemyError as error:
            self.worker.consumer.outage.begin_by(error)
            return
        pause, resume = paused & self._consumed(), self._ours - paused
        if pause or resume:
            # Kombu's channels belong to the loop's thread.
            self.worker.consumer.call_soon(self.obey, pause, resume)

    def obey(self, pause: Iterable[str], resume: Iterable[str]) -> None:
        """Stop and start consuming; in the thread of the worker's loop."""
        consumer = self.worker.consumer
        connected = consumer.task_consumer is not None
        for name in sorted(pause):
            self._ours.add(name)
            if connected:
                consumer.cancel_task_queue(name)
            else:
                self._queues.deselect(name)
            logger.warning("the queue %s is paused: nothing is taken from it", name)
        for name in sorted(resume):
            if connected:
                consumer.add_task_queue(name)
            else:
                self._queues.select_add(self._queues[name])
            self._ours.discard(name)
            logger.warning("the queue %s is resumed", name)

    @property
    def _queues(self) -> Any:
        return self.worker.app.amqp.queues

    def _consumed(self) -> set[str]:
        return set(self._queues.consume_from)


def _paused() -> set[str]:
    with db.reading() as session:
        return set(queues.paused(session))


def install(app: Celery) -> None:
    """Let the workers of ``app`` obey pauses."""
    app.steps["worker"].add(Pauses)
