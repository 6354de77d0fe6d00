"""The part of a worker that takes messages, and what it does with those that no task takes."""

import logging
from collections.abc import Callable
from datetime import timedelta
from functools import cached_property
from traceback import extract_tb
from typing import Any

from celery import Celery, signals
from celery.exceptions import WorkerShutdown
from celery.utils.threads import bound_open_broker_sockets  # type: ignore[attr-defined]
from celery.worker.consumer import Consumer
from kombu.common import ignore_errors
from redis import Redis
from vine import promise

from app import clock, db, entropy
from app.domain.backoff import backoff_delay
from app.outbox import guard
from app.outbox.guard import Delivery
from app.settings import load_settings
from app.tasks import envelopes, messages
from app.tasks.base import BaseTask
from app.tasks.broker import RedisBroker
from app.tasks.redis_clients import keep_client
from app.tasks.startup import CannotStartError, check_clock

logger = logging.getLogger(__name__)

EXIT_STATUS = 2
"""Of a worker that must not go on."""
EVENTS_WAIT_SECONDS = 0.1
"""Task events of so long go out together, in one message, or as soon as Celery has 24."""
LAST_ANSWER_SECONDS = 5.0
"""A connection that seems lost is listened to for so long before it is closed."""
RECORD_AGAIN_SECONDS = 5.0
"""A message whose dead letter could not be written is held, and tried again after this."""


class OutboxConsumer(Consumer):
    """Makes one dead letter of each message that no task can be given, and goes on.

    Celery's own drops such messages, or ends the worker, which meets them again. A task
    that this worker does not know may be one that others already know (a rolling deploy):
    it goes back to its entry, with backoff, before it is dead.
    """

    app: Celery
    connection_errors: tuple[type[Exception], ...]
    channel_errors: tuple[type[Exception], ...]

    hub: Any
    _flush_is_planned = False

    taken = 0
    """Messages that came from the broker, whatever became of them."""

    def connect(self) -> Any:
        """Connect; stop the worker where its clock would make it steal others' tasks.

        Here, because a worker that started without Redis begins to look for messages of the
        dead right after this; and at each reconnection, for a clock may step.
        """
        connection = super().connect()
        try:
            check_clock(self._broker)
        except CannotStartError as error:
            logger.critical("%s", error)
            raise WorkerShutdown(EXIT_STATUS) from None
        client = _redis_of(connection)
        if client is not None:
            envelopes.refuse_faulty_items(client, self._refuse_item)
            keep_client(connection.default_channel)
        return connection

    def connection_for_read(self, heartbeat: Any = None) -> Any:
        """A connection whose channels for broadcasts survive faulty ones.

        Asked for the connection of the tasks, and by a pool of greenlets for another one, on
        which it hears remote control.
        """
        connection = super().connection_for_read(heartbeat)
        if _redis_of(connection) is not None:
            # Remote control and gossip open channels of their own after this.
            transport: Any = connection.transport
            transport.Channel = envelopes.forgiving(transport.Channel)
        return connection

    def connection_for_write(self, url: Any = None, heartbeat: Any = None) -> Any:
        """The connection of the events, which need a client for each of their messages."""
        connection = super().connection_for_write(url, heartbeat)
        keep_client(connection.default_channel)
        return connection

    def on_send_event_buffered(self) -> Any:
        """Send the event soon. Celery does it each time round its loop, and waits for Redis."""
        if self.hub and not self._flush_is_planned:
            self._flush_is_planned = True
            self.hub.call_later(EVENTS_WAIT_SECONDS, self._flush_events)

    def _flush_events(self) -> None:
        self._flush_is_planned = False
        super()._flush_events()  # type: ignore[misc]

    def stop(self) -> None:
        if self._flush_is_planned:
            self._flush_events()
        super().stop()

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Let go of a lost connection in such a way that the worker can make another.

        kombu's ``Channel.close`` fails where the channel waits for an answer of the lost
        connection, and does its work when it is called again. Celery's second call comes
        when the channel knows no address any more: that raises AttributeError, and so would
        the acknowledgement of each task that still runs. Either ends the worker.
        """
        connection: Any = self.connection
        if connection is not None:
            bound_open_broker_sockets(connection, LAST_ANSWER_SECONDS)
            for channel in tuple(connection.transport.channels):
                ignore_errors(connection, channel.close)
        super().on_connection_error_after_connected(exc)

    @cached_property
    def _broker(self) -> RedisBroker:
        return RedisBroker(self.app, timeout=load_settings().publish_timeout_seconds)

    def create_task_handler(self, promise: Any = promise) -> Callable[[Any], Any]:
        handle = super().create_task_handler(promise)
        broken_connection = self.connection_errors + self.channel_errors

        def on_message(message: Any) -> None:
            self.taken += 1
            try:
                messages.check(message)
                handle(message)
            except broken_connection:
                raise
            except messages.FaultyMessageError as error:
                self._refuse(message, str(error))
            except Exception as error:
                # What the check does not foresee. It must not end the worker: it would be
                # redelivered to the next one. The error's text may quote the message.
                where = extract_tb(error.__traceback__)[-1]
                self._refuse(message, f"{type(error).__name__} in {where.name}")

        return on_message

    def on_unknown_message(self, body: Any, message: Any) -> None:
        self._refuse(message, "it names no task")

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        self._refuse(message, f"it is no valid call of its task: {type(exc).__name__}")

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        self._refuse(message, f"the message cannot be decoded: {type(exc).__name__}")

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        delivery = messages.delivery_of(message)
        delay = backoff_delay(
            delivery.tries, base=BaseTask.retry_base, cap=BaseTask.retry_cap, rng=entropy.rng()
        )

        def record(session: Any, delivery: Delivery) -> bool:
            now = clock.utcnow()
            return guard.postpone(
                session,
                delivery,
                limit=load_settings().unknown_task_retries,
                due_at=now + timedelta(seconds=delay),
                error=f"no worker that took it knows the task {delivery.task}",
                now=now,
            )

        self._record(message, delivery, f"unknown task {delivery.task}", record)

    def _refuse_item(self, item: bytes, why: str) -> None:
        self.taken += 1
        self._record(None, envelopes.delivery_of(item), why, _dead(why))

    def _refuse(self, message: Any, why: str) -> None:
        self._record(message, messages.delivery_of(message), why, _dead(why))

    def _record(
        self, message: Any, delivery: Delivery, why: str, record: Callable[[Any, Delivery], bool]
    ) -> None:
        try:
            with db.transaction() as session:
                record(session, delivery)
        except BaseTask.transient_errors as error:
            logger.error("held, its dead letter cannot be written (%s): %s", error, delivery.id)
            self.timer.call_after(
                RECORD_AGAIN_SECONDS, self._record, (message, delivery, why, record)
            )
            return
        except Exception:
            logger.exception("dropped, its dead letter cannot be written: %s", delivery.id)
        else:
            logger.error("refused %s[%s]: %s", delivery.task, delivery.id, why)
        if message is None:
            return  # it was never a message that could be acknowledged
        if not message.acknowledged:
            message.ack_log_error(logger, self.connection_errors)
        signals.task_rejected.send(sender=self, message=message, exc=None)


def _dead(why: str) -> Callable[[Any, Delivery], bool]:
    def record(session: Any, delivery: Delivery) -> bool:
        return guard.refuse(session, delivery, error=f"refused: {why}", now=clock.utcnow())

    return record


def _redis_of(connection: Any) -> Redis | None:
    """The client of a connection to a Redis; ``None`` where it leads elsewhere."""
    client = getattr(connection.default_channel, "client", None)
    return client if isinstance(client, Redis) else None
