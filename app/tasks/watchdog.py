"""A worker that lives and works no more ends itself, so that its supervisor starts a new one.

A ping does not tell: a failed acknowledgement costs kombu's channel one of its credits for
good, and a channel without credits takes nothing while the worker answers everything.
"""

import logging
import os
import sys
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any, NoReturn

from celery import Celery, signals
from celery.bootsteps import RUN  # type: ignore[attr-defined]  # celery-types lacks it
from celery.worker import state

from app.outbox import BrokerUnavailableError
from app.settings import load_settings
from app.tasks.broker import RedisBroker
from app.tasks.lease import snapshot
from app.tasks.worker_thread import WorkerThread

logger = logging.getLogger(__name__)

EXIT_STATUS = 70
"""EX_SOFTWARE of sysexits.h."""
LONGEST_INTERVAL = 5.0
LOOKS = 4
"""At least so many looks agree before a worker is called stuck."""


@dataclass(frozen=True)
class Look:
    """A worker at one moment."""

    at: float
    """Seconds of a clock that never steps."""
    progress: int
    """Messages taken and tasks started so far."""
    free_slots: int
    waiting: int
    """Messages in the lists that it takes from; 0 where the broker does not tell."""


@dataclass(frozen=True)
class Suspicion:
    """Since when a worker could have worked and did not."""

    since: float
    last_look: Look


def suspect(before: Suspicion | None, look: Look, *, longest_gap: float) -> Suspicion | None:
    """What to think of a worker after one more look; ``None`` where it is as it should be.

    Idle, busy, out of reach of the broker or the database, with all its queues paused, and
    having begun anything since the last look are all as they should be. So is a worker at
    which nobody looked for ``longest_gap`` seconds: the machine slept, not the worker.
    """
    if look.free_slots <= 0 or look.waiting <= 0:
        return None
    if (
        before is None
        or look.progress != before.last_look.progress
        or look.at - before.last_look.at > longest_gap
    ):
        return Suspicion(since=look.at, last_look=look)
    return replace(before, last_look=look)


class Watchdog(WorkerThread):
    """Ends a worker whose slots are free while work waits and nothing starts."""

    def prepare(self) -> None:
        settings = load_settings()
        self._limit = settings.watchdog_seconds
        self.interval = min(LONGEST_INTERVAL, self._limit / LOOKS)
        self._broker = RedisBroker(self.worker.app, timeout=settings.publish_timeout_seconds)
        self._ready = False
        self._suspicion: Suspicion | None = None
        self._lost: set[Any] = set()
        signals.worker_ready.connect(self._begin)

    def start(self, worker: Any) -> None:
        if load_settings().watchdog_seconds:
            super().start(worker)

    def repeat(self) -> None:
        if not self._ready or self.worker.blueprint.state != RUN:
            self._suspicion = None
            return
        self._give_up_lost_slots()
        look = self.look()
        self._suspicion = suspect(self._suspicion, look, longest_gap=LOOKS * self.interval)
        if self._suspicion is not None and look.at - self._suspicion.since >= self._limit:
            self._end_process(look)

    def look(self) -> Look:
        """The worker as it is now."""
        started = state.all_total_count[0]
        consumer, pool = self.worker.consumer, self.worker.pool
        busy = [request for request in snapshot(state.active_requests) if not _is_lost(request)]
        free = pool.num_processes - len(busy)
        return Look(
            at=monotonic(),
            progress=started + consumer.taken,
            free_slots=free,
            waiting=self._waiting() if free > 0 else 0,
        )

    def _give_up_lost_slots(self) -> None:
        """Requeue tasks whose end the pool did not report, at the second look.

        Celery counts such a task as running, so its slot and its message would be lost for
        as long as the worker lives.
        """
        lost = {request for request in snapshot(state.active_requests) if _is_lost(request)}
        for request in lost & self._lost:
            logger.error(
                "slot lost: %s[%s] has finished in the pool and its end was not reported. "
                "Requeueing it",
                request.task.name,
                request.id,
            )
            self.worker.consumer.call_soon(request.give_up)
        self._lost = lost

    def _waiting(self) -> int:
        if self.worker.consumer.outage.is_on:
            return 0  # it leaves them to others
        try:
            depths = self._broker.depths(list(self.worker.app.amqp.queues.consume_from))
        except BrokerUnavailableError:
            return 0
        return sum(depth.waiting for depth in depths.values())

    def _begin(self, **_: Any) -> None:
        self._ready = True

    def _end_process(self, look: Look) -> NoReturn:
        logger.critical(
            "stuck: %d messages wait, %d of %d slots are free, and nothing was started for %g s: "
            "exiting with %d, to be started again; what this worker held comes back by itself",
            look.waiting,
            look.free_slots,
            self.worker.pool.num_processes,
            self._limit,
            EXIT_STATUS,
        )
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        # Not an orderly end: whatever is stuck could hold that up too.
        os._exit(EXIT_STATUS)


def _is_lost(request: Any) -> bool:
    return bool(getattr(request, "is_over_in_the_pool", False))


def install(app: Celery) -> None:
    """Let the workers of ``app`` be watched."""
    app.steps["worker"].add(Watchdog)
