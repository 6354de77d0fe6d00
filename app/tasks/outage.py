"""A worker that cannot reach its database takes no messages until it can.

What it could not begin or record goes back to its queue, in the place that it had, for a worker
that can. No attempt is counted and no message is acknowledged (docs/decisions/0027).
"""

import logging
from contextlib import suppress
from datetime import datetime
from threading import Lock
from time import monotonic
from typing import Any

from celery import Celery
from celery.worker.control import inspect_command
from kombu.transport.virtual import QoS
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps, loads
from sqlalchemy import false, update

from app import clock, db, entropy
from app.domain.backoff import backoff_delay
from app.models import OUTBOX_ENTRIES
from app.outbox import PUBLISHED_AT_HEADER
from app.tasks.worker_thread import WorkerThread

logger = logging.getLogger(__name__)

INTERVAL_SECONDS = 1.0
PROBE_BASE_SECONDS, PROBE_CAP_SECONDS = 2.0, 15.0
"""Bounds of the wait before the first probe of the database, and before any later one."""
STEADY_SECONDS = 60.0
"""An outage that begins sooner after the last one goes on with its longer waits."""

_WRITES_NOTHING = update(OUTBOX_ENTRIES).where(false()).values(tries=OUTBOX_ENTRIES.c.tries)


class Outage:
    """Whether a worker has lost its database, and when to ask it again."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._since: datetime | None = None
        self._reason = ""
        self._failures = 0
        self._next_probe = 0.0
        self._ended_at = float("-inf")

    @property
    def is_on(self) -> bool:
        """Whether the worker takes no messages now."""
        return self._since is not None

    @property
    def is_probe_due(self) -> bool:
        """Whether the database is to be asked now."""
        return self.is_on and monotonic() >= self._next_probe

    @property
    def seconds(self) -> float:
        """For how long the worker has taken no messages; 0 where it takes them."""
        since = self._since
        return 0.0 if since is None else max(0.0, (clock.utcnow() - since).total_seconds())

    @property
    def reason(self) -> str:
        """What the database or its driver reported first."""
        return self._reason

    def begin(self, reason: str) -> None:
        """Take no more messages. Called from any thread, again and again during one outage."""
        with self._lock:
            if self.is_on:
                return
            if monotonic() - self._ended_at > STEADY_SECONDS:
                self._failures = 0
            self._since, self._reason = clock.utcnow(), reason
            self._plan_probe()
        logger.error(
            "the database does not answer, this worker takes no messages until it does: %s", reason
        )

    def begin_by(self, error: Exception) -> None:
        """Begin by what a statement of ours raised, unless only a row was locked."""
        if not db.is_lock_timeout(error):
            self.begin(db.reason(error))

    def go_on(self) -> None:
        """Note that the database still does not answer."""
        with self._lock:
            self._plan_probe()

    def end(self) -> None:
        """Take messages again."""
        with self._lock:
            if not self.is_on:
                return
            seconds = self.seconds
            self._since, self._ended_at = None, monotonic()
        logger.warning(
            "the database answers again after %.0f s, this worker takes messages", seconds
        )

    def _plan_probe(self) -> None:
        delay = backoff_delay(
            self._failures, base=PROBE_BASE_SECONDS, cap=PROBE_CAP_SECONDS, rng=entropy.rng()
        )
        self._failures += 1
        self._next_probe = monotonic() + delay

    def keep_from_taking(self, channel: Any) -> None:
        """Make ``channel``, of kombu's Redis transport, take no messages during an outage.

        What it requeues, in an outage or not, is moved by ``give_back``.
        """
        qos = channel.qos
        may_consume, reject = qos.can_consume, qos.reject

        def can_consume() -> bool:
            # A reply of Redis that is on its way may contain a message: it is read, and the
            # message is given back.
            return may_consume() and bool(channel._in_poll or not self.is_on)

        def reject_or_give_back(delivery_tag: str, requeue: bool = False) -> None:
            if requeue:
                give_back(channel, delivery_tag)
                QoS.ack(qos, delivery_tag)
            else:
                reject(delivery_tag)

        qos.can_consume, qos.reject = can_consume, reject_or_give_back
        channel.outage = self


def of_message(message: Any) -> Outage | None:
    """The outage of the worker that took ``message``; ``None`` where nothing watches it."""
    return getattr(message.channel, "outage", None)


def give_back(channel: Any, delivery_tag: str) -> None:
    """Move a message that this worker holds to the head of the list that it came from.

    kombu would put it at the end, where the relay takes it for lost, and mark it as redelivered,
    which counts as a lost worker. A message that came past the outbox goes to the end, since
    another transaction may hold its row for long, and keeps such a mark: its entry, if it has
    one, was made because of it.
    """
    qos = channel.qos

    def move(pipe: Any) -> None:
        held = pipe.hget(qos.unacked_key, delivery_tag)
        pipe.multi()
        qos._remove_from_indices(delivery_tag, pipe)
        if not held:
            return
        message, exchange, routing_key = loads(bytes_to_str(held))
        push = pipe.lpush
        with suppress(KeyError, TypeError, AttributeError):  # not one of ours
            if PUBLISHED_AT_HEADER in message["headers"]:
                push = pipe.rpush
                message["headers"].pop("redelivered", None)
                message["properties"]["delivery_info"].pop("redelivered", None)
        priority = channel._get_message_priority(message, reverse=False)
        for queue in channel._lookup(exchange, routing_key):
            push(channel._q_for_pri(queue, priority), dumps(message))

    with channel.conn_or_acquire() as client:
        client.transaction(move, qos.unacked_key)


class DatabaseWatch(WorkerThread):
    """Probes a database that did not answer, and lets the worker go on when it does."""

    interval = INTERVAL_SECONDS

    def prepare(self) -> None:
        """There is nothing to prepare."""

    def repeat(self) -> None:
        consumer = self.worker.consumer
        if not consumer.outage.is_probe_due:
            return
        try:
            probe()
        except db.OUTAGE_ERRORS:
            consumer.outage.go_on()
        else:
            # kombu's channels belong to the loop's thread.
            consumer.call_soon(consumer.outage.end)


def probe() -> None:
    """Raise one of ``db.OUTAGE_ERRORS`` where a new connection cannot write entries."""
    with db.no_fork():
        if db.engine().dialect.name != "sqlite":
            # Idle ones may be from before: a changed password or a full server does not end them.
            db.engine().dispose()
        with db.transaction(brief=True) as session:
            session.execute(_WRITES_NOTHING)


@inspect_command()
def outage(state: Any, **_: Any) -> dict[str, Any]:
    """Report for how long this worker has taken no messages, and why."""
    found: Outage = state.consumer.outage
    return {"seconds": found.seconds, "reason": found.reason if found.is_on else ""}


def install(app: Celery) -> None:
    """Let the workers of ``app`` go on by themselves after an outage."""
    app.steps["worker"].add(DatabaseWatch)
