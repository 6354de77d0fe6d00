"""The part of a worker that takes messages, and what it does with those that no task takes."""

import logging
import math
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from functools import cached_property, partial
from random import Random
from time import monotonic
from traceback import extract_tb
from typing import Any

from celery import Celery, signals
from celery.exceptions import WorkerShutdown
from celery.utils.threads import bound_open_broker_sockets  # type: ignore[attr-defined]
from celery.utils.time import rate
from celery.worker import state
from celery.worker.consumer import Consumer
from kombu.common import ignore_errors
from kombu.transport.redis import Channel
from kombu.utils.limits import TokenBucket
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
from app.tasks.outage import Outage
from app.tasks.redis_clients import keep_client
from app.tasks.startup import WrongClockError, check_clock

logger = logging.getLogger(__name__)

EVENTS_WAIT_SECONDS = 0.1
"""Task events of so long go out together, in one message, or as soon as Celery has 24."""
LAST_ANSWER_SECONDS = 5.0
"""A connection that seems lost is listened to for so long before it is closed."""
RECORD_AGAIN_SECONDS = 5.0
"""A message whose dead letter could not be written is held, and tried again after this."""
SHORTEST_LINE = 10
"""Messages of one task that a worker holds at least while they wait for its rate limit."""
LINE_SECONDS = 5.0
"""It holds more where the rate starts more within this time."""
LONGEST_POSTPONEMENT = 300.0
"""Seconds. A rate limit that is raised by remote control reaches every message after this."""
FULL_SECONDS = 0.2
"""A message whose turn has come while every slot is taken looks for a free one this often."""
START_AGAIN_SECONDS = 5.0
"""Seconds until the next try to start a message that the pool did not take."""


class Line(TokenBucket):
    """A task's rate limit in one worker, and its messages that wait there for their turn."""

    contents: deque[tuple[Any, int]]
    fill_rate: float
    """Starts a second."""

    def __init__(self, fill_rate: float, capacity: int = 1) -> None:
        super().__init__(fill_rate, capacity)
        self.length = max(SHORTEST_LINE, math.ceil(fill_rate * LINE_SECONDS))
        """As many messages may wait here."""
        self._next_start = 0.0

    def postponement(self, rng: Random) -> float:
        """Seconds after which a message that finds the line full is to come back.

        Each gets a turn of its own, behind those before it, and comes back when half of the
        line is still before it, so that the line does not run dry. Turns that are further
        away than ``LONGEST_POSTPONEMENT`` are not planned: the message comes back earlier.
        """
        now = monotonic()
        last_start = now + self.expected_time() + len(self.contents) / self.fill_rate
        start = max(self._next_start, last_start)
        seconds = start - now - self.length / 2 / self.fill_rate
        if seconds > LONGEST_POSTPONEMENT:
            return rng.uniform(LONGEST_POSTPONEMENT / 2, LONGEST_POSTPONEMENT)
        self._next_start = start + 1 / self.fill_rate
        return seconds


class OutboxConsumer(Consumer):
    """Makes one dead letter of each message that no task can be given, and goes on.

    Celery's own drops such messages, or ends the worker, which meets them again. A task
    that this worker does not know may be one that others already know (a rolling deploy):
    it goes back to its entry, with backoff, before it is dead.

    A message that must wait for its task's rate limit, or for its ETA, keeps no other from
    being taken (docs/decisions/0021).
    """

    app: Celery
    connection_errors: tuple[type[Exception], ...]
    channel_errors: tuple[type[Exception], ...]

    hub: Any
    qos: Any
    task_buckets: dict[str, Any]
    _flush_is_planned = False

    taken = 0
    """Messages that came from the broker, whatever became of them."""
    given = 0
    """Messages that went from the broker to the pool at once."""
    _given_before_last = 0
    _look_is_planned = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._due: deque[Any] = deque()
        super().__init__(*args, **kwargs)

    def connect(self) -> Any:
        """Connect; stop a worker whose clock would make it take other workers' tasks.

        Here, because a worker that started without Redis begins to look for messages of the
        dead right after this.
        """
        connection = super().connect()
        self._check_clock()
        if isinstance(connection.default_channel, Channel):
            self.outage.keep_from_taking(connection.default_channel)
        client = _redis_of(connection)
        if client is not None:
            envelopes.refuse_faulty_items(client, self._refuse_item)
            keep_client(connection.default_channel)
            self._restore_by_checked_clock(connection.default_channel)
        return connection

    def _restore_by_checked_clock(self, channel: Any) -> None:
        """Compare the clocks before each look for expired leases: a clock may step."""
        qos = channel.qos
        restore_visible = qos.restore_visible

        def checked(*args: Any, **kwargs: Any) -> Any:
            self._check_clock()
            return restore_visible(*args, **kwargs)

        qos.restore_visible = checked

    def _check_clock(self) -> None:
        try:
            check_clock(self._broker)
        except WrongClockError as error:
            logger.critical("%s", error)
            raise WorkerShutdown(error.status) from None

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
    def outage(self) -> Outage:
        """Whether this worker reaches its database."""
        return Outage()

    @cached_property
    def _broker(self) -> RedisBroker:
        return RedisBroker(self.app, timeout=load_settings().publish_timeout_seconds)

    def bucket_for_task(self, type: Any) -> Line | None:
        limit = rate(type.rate_limit)
        return Line(limit) if limit else None

    def reset_rate_limits(self) -> None:
        """Take over the tasks' rate limits; also called when remote control has changed one.

        Celery would leave what waits to the limit that it came under.
        """
        before = {name: line for name, line in self.task_buckets.items() if line is not None}
        super().reset_rate_limits()
        for name, line in before.items():
            changed = self.task_buckets[name]
            if changed is not None and changed.fill_rate == line.fill_rate:
                self.task_buckets[name] = line
                continue
            waiting = list(line.contents)
            line.clear_pending()
            if changed is None:
                for request, _ in waiting:
                    request.has_extra_credit = False
                    self.apply_eta_task(request)
            else:
                changed.contents.extend(waiting)
                self._schedule_bucket_request(changed)

    def _limit_task(self, request: Any, bucket: Line, tokens: int) -> None:
        if not bucket.contents and bucket.can_consume(tokens):
            self._limit_move_to_pool(request)
            return
        if len(bucket.contents) >= bucket.length and self._postpone(request, bucket):
            return
        # As Celery does for an ETA: what waits must not use up a credit.
        self.qos.increment_eventually()
        request.has_extra_credit = True
        bucket.add((request, tokens))
        # A line that was not empty has its timer. Celery adds one for each message, and all
        # of them go on until the line is empty.
        if len(bucket.contents) == 1:
            self._schedule_bucket_request(bucket)

    def _limit_post_eta(self, request: Any, bucket: Line, tokens: int) -> None:
        self.qos.decrement_eventually()
        self._limit_task(request, bucket, tokens)

    def _schedule_bucket_request(self, bucket: Line) -> None:
        planned = False
        try:
            if bucket.contents and not bucket.expected_time() and not self._may_start():
                self._look_at_line_again(bucket)
            else:
                super()._schedule_bucket_request(bucket)  # type: ignore[misc]
            planned = True
        finally:
            # The line's only timer has fired. Without another one the line would stand still.
            if not planned and bucket.contents:
                self._look_at_line_again(bucket)

    def _look_at_line_again(self, bucket: Line) -> None:
        self.timer.call_after(FULL_SECONDS, self._schedule_bucket_request, (bucket,))

    def _limit_move_to_pool(self, request: Any) -> None:
        if not getattr(request, "has_extra_credit", False):
            super()._limit_move_to_pool(request)  # type: ignore[misc]
            return
        request.has_extra_credit = False
        if not self._start(request):
            self._plan_look(START_AGAIN_SECONDS)

    def apply_eta_task(self, task: Any) -> None:
        """Start a task whose ETA has come, as soon as there is a slot for it."""
        self._due.append(task)
        if not self._look_is_planned:
            self._start_due()

    def _start_due(self) -> None:
        self._look_is_planned = False
        seconds = FULL_SECONDS
        try:
            while self._due and self._may_start():
                if not self._start(self._due.popleft()):
                    seconds = START_AGAIN_SECONDS
                    break
        finally:
            self._plan_look(seconds)

    def _plan_look(self, seconds: float) -> None:
        if self._due and not self._look_is_planned:
            self._look_is_planned = True
            self.timer.call_after(seconds, self._start_due)

    def _start(self, request: Any) -> bool:
        """Give a message that waited in this worker to the pool, and its credit back.

        Return False where the pool raises, for instance because it is closing. The message then
        waits on, behind the others whose time has come, and keeps its credit.
        """
        try:
            super().apply_eta_task(request)
        except Exception:
            logger.exception("not started, the pool did not take it: %s", request.id)
            # Celery has counted it among those that have a slot.
            state.reserved_requests.discard(request)
            self._due.append(request)
            return False
        return True

    def on_close(self) -> None:
        """Forget what waits: its connection is gone, and Redis delivers it again.

        Celery cancels timers of the lost connection, so each one has to be planned anew.
        """
        super().on_close()
        self._due.clear()
        self._look_is_planned = self._flush_is_planned = False

    def _may_start(self) -> bool:
        """Whether a message that waited in this worker may be given to the pool.

        Not to wait there for a slot, else it would be run before more urgent ones that wait
        in Redis. While all slots are taken one may, after each one that went from Redis to the
        pool, else a worker that always has work would never run it. With a prefetch multiplier
        above 1 the pool holds more messages than it has slots.
        """
        free: int = self.pool.num_processes - len(state.reserved_requests)
        if free <= 0 and self.given != self._given_before_last:
            self._given_before_last = self.given
            return True
        return free > 0

    def _postpone(self, request: Any, line: Line) -> bool:
        """Move the message's wait into its outbox entry; return whether that was possible."""
        delivery = messages.delivery_of(request.message)
        if not delivery.from_outbox or request.eta is not None:
            return False
        now = clock.utcnow()
        due_at = now + timedelta(seconds=line.postponement(entropy.rng()))
        limit = f"rate limit {request.task.rate_limit}"
        try:
            with db.transaction(brief=True) as session:
                guard.wait(session, delivery, due_at=due_at, waits_for=limit)
        except db.OUTAGE_ERRORS as error:
            self.outage.begin_by(error)
            return False
        except Exception:
            # The message is not at fault: on_message must not make a dead letter of it.
            logger.exception("held, it cannot be postponed: %s", delivery.id)
            return False
        why = f"{limit}: postponed to {due_at:%Y-%m-%d %H:%M:%S} UTC"
        logger.info("%s[%s] %s", delivery.task, delivery.id, why)
        request.send_event("task-retried", exception=why, traceback="")
        request.acknowledge()
        return True

    def create_task_handler(self, promise: Any = promise) -> Callable[[Any], Any]:
        handle = super().create_task_handler(promise)
        broken_connection = self.connection_errors + self.channel_errors

        def on_message(message: Any) -> None:
            self.taken += 1
            if self.outage.is_on:
                message.reject_log_error(logger, self.connection_errors, requeue=True)
                return
            try:
                messages.check(message)
                credit = self.qos.value
                handle(message)
                # One that waits here has a credit of its own, a postponed one is acknowledged.
                if self.qos.value == credit and not message.acknowledged:
                    self.given += 1
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
        self._record(message, delivery, f"unknown task {delivery.task}", postpone_unknown)

    def _refuse_item(self, item: bytes, why: str) -> None:
        self.taken += 1
        self._record(None, envelopes.delivery_of(item), why, _dead(why))

    def _refuse(self, message: Any, why: str) -> None:
        self._record(message, messages.delivery_of(message), why, _dead(why))

    def _record(
        self,
        message: Any,
        delivery: Delivery,
        why: str,
        record: Callable[[Any, Delivery], bool],
        *,
        is_held: bool = False,
    ) -> None:
        again = partial(self._record, message, delivery, why, record, is_held=True)
        if is_held and self.outage.is_on:
            # A server that is away may take ten seconds of this loop to say so.
            self.timer.call_after(RECORD_AGAIN_SECONDS, again)
            return
        try:
            with db.transaction(brief=True) as session:
                record(session, delivery)
        except db.OUTAGE_ERRORS as error:
            if not is_held:
                logger.error("held, its dead letter cannot be written (%s): %s", error, delivery.id)
            self.outage.begin_by(error)
            self.timer.call_after(RECORD_AGAIN_SECONDS, again)
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


def postpone_unknown(session: Any, delivery: Delivery) -> bool:
    """Reschedule work whose task nobody here knows, within UNKNOWN_TASK_RETRIES attempts."""
    now = clock.utcnow()
    delay = backoff_delay(
        delivery.tries, base=BaseTask.retry_base, cap=BaseTask.retry_cap, rng=entropy.rng()
    )
    return guard.postpone(
        session,
        delivery,
        limit=load_settings().unknown_task_retries,
        due_at=now + timedelta(seconds=delay),
        error=f"no worker that took it knows the task {delivery.task}",
        now=now,
    )


def _dead(why: str) -> Callable[[Any, Delivery], bool]:
    def record(session: Any, delivery: Delivery) -> bool:
        return guard.refuse(session, delivery, error=f"refused: {why}", now=clock.utcnow())

    return record


def _redis_of(connection: Any) -> Redis | None:
    """The client of a connection to a Redis; ``None`` where it leads elsewhere."""
    client = getattr(connection.default_channel, "client", None)
    return client if isinstance(client, Redis) else None
