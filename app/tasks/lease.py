"""The lease: what a living worker holds stays invisible to the others.

The visibility timeout can then be short, so that a dead worker's tasks come back soon,
while a long task or a long wait is not run twice.
"""

import logging
from typing import Any

from celery import Celery
from celery.worker import state

from app.settings import load_settings
from app.tasks import stopping
from app.tasks.broker import RedisBroker
from app.tasks.startup import WrongClockError, check_clock
from app.tasks.worker_thread import WorkerThread

logger = logging.getLogger(__name__)


class Lease(WorkerThread):
    """Renews the visibility timeout of all that this worker holds."""

    def prepare(self) -> None:
        settings = load_settings()
        self._broker = RedisBroker(self.worker.app, timeout=settings.publish_timeout_seconds)
        self.interval = settings.lease_interval_seconds

    def repeat(self) -> None:
        """Renew once, and stop a worker whose clock has stepped when its tasks have ended.

        Raises ``BrokerUnavailableError``.
        """
        self._broker.renew(held_tags(self.worker.consumer))
        if stopping.stop_is_requested():
            return
        try:
            check_clock(self._broker)
        except WrongClockError as error:
            logger.critical("%s", error)
            state.should_stop = error.status  # type: ignore[assignment]


def held_tags(consumer: Any) -> set[str]:
    """Delivery tags of the messages that a worker took and has not acknowledged.

    Those that its channel knows, and those of the tasks that it still runs or is about
    to: after a reconnection the new channel does not know them any more.
    """
    tags = set()
    task_consumer = getattr(consumer, "task_consumer", None)
    if task_consumer is not None:
        qos = task_consumer.channel.qos
        tags.update(snapshot(qos._delivered))
    for request in snapshot(state.requests.values()):
        tags.add(request.message.delivery_tag)
    return tags


def snapshot(changing: Any) -> list[Any]:
    """Return the items of a collection that the worker's own thread may change meanwhile."""
    while True:
        try:
            return list(changing)
        except RuntimeError:  # changed by the worker's own thread while we looked
            continue


def install(app: Celery) -> None:
    """Add the lease to the workers of ``app``."""
    app.steps["worker"].add(Lease)
