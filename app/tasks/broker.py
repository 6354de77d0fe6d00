"""Redis as the outbox sees it."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from celery import Celery
from kombu.exceptions import LimitExceeded, OperationalError
from kombu.pools import ProducerPool
from redis.exceptions import RedisError

from app import trace
from app.adapters.redis_connection import reason
from app.outbox.broker import (
    DUE_INSTANT_HEADER,
    PUBLISHED_AT_HEADER,
    BrokerUnavailableError,
    Memory,
    NoStamp,
    OutboxMessage,
    QueueDepth,
)
from app.routing import MOST_URGENT
from app.settings import CLOCK_TOLERANCE
from app.tasks.redis_clients import keep_client

POOL_LIMIT = 10
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOT_OURS = (ValueError, LookupError, TypeError, RecursionError)
"""What reading raises of an item in a list that no publisher of ours wrote."""


class RedisBroker:
    """``app.outbox.broker.Broker`` on the Redis of a Celery app, over kombu.

    Has connections of its own with short timeouts: a person waits for a commit to
    return, a worker's consumer may wait longer. ``timeout`` is in seconds and bounds each
    wait.
    """

    def __init__(self, app: Celery, *, timeout: float):
        self._app = app
        self._timeout = timeout
        self._pool: Any = None
        self._pid = 0

    def now(self) -> datetime:
        with self._producer() as producer, producer.channel.conn_or_acquire() as client:
            return _clock_of(client)

    def push(self, messages: Sequence[OutboxMessage]) -> None:
        declared: set[str] = set()
        with self._producer() as producer, producer.batch(max_size=len(messages)):
            for message in messages:
                headers = {PUBLISHED_AT_HEADER: message.published_at.isoformat()}
                if message.due_instant is not None:
                    headers[DUE_INSTANT_HEADER] = message.due_instant.isoformat()
                if message.trace_id is not None:
                    headers[trace.HEADER] = message.trace_id
                self._app.send_task(
                    message.task,
                    message.args,
                    message.kwargs,
                    task_id=message.id,
                    queue=message.queue,
                    priority=message.priority,
                    retries=message.tries,
                    headers=headers,
                    producer=producer,
                    # Once for each queue: kombu takes a fifth of the push to see that it is.
                    declare=() if message.queue in declared else None,
                    # A failed push goes back to the entry; trying again here would only wait.
                    retry=False,
                    # The entry tells what became of it. A result would also make the
                    # publisher subscribe to it.
                    ignore_result=True,
                    add_to_parent=False,
                )
                declared.add(message.queue)

    def oldest(self, lists: Sequence[tuple[str, int]]) -> Sequence[datetime | NoStamp]:
        with self._producer() as producer:
            channel = producer.channel
            with channel.conn_or_acquire() as client, client.pipeline(transaction=False) as pipe:
                for queue, priority in lists:
                    # Messages go in at the left and out at the right.
                    pipe.lindex(channel._q_for_pri(queue, priority), -1)
                return [_stamp(raw) for raw in pipe.execute()]

    def held(self) -> set[str]:
        with self._producer() as producer:
            channel = producer.channel
            timeout = channel.visibility_timeout
            tolerance = CLOCK_TOLERANCE * timeout
            with channel.conn_or_acquire() as client:
                now = _clock_of(client).timestamp()
                # An entry of ``unacked`` alone proves nothing: a dead worker leaves it behind
                # without a lease, or with one far in the future where its clock was wrong.
                leases = client.zrange(
                    channel.unacked_index_key,
                    now + tolerance,
                    now - timeout - tolerance,
                    desc=True,
                    byscore=True,
                    withscores=True,
                )
                # Keyed by delivery tag, so the ids are in the values: [message, exchange, key].
                tags = [tag for tag, _ in leases]
                values = client.hmget(channel.unacked_key, tags) if tags else []
        return {task_id for value in values if value and (task_id := _task_id(value)) is not None}

    def depths(self, queues: Sequence[str]) -> dict[str, QueueDepth]:
        with self._producer() as producer:
            channel = producer.channel
            with channel.conn_or_acquire() as client, client.pipeline(transaction=False) as pipe:
                for queue in queues:
                    for priority in range(MOST_URGENT + 1):
                        key = channel._q_for_pri(queue, priority)
                        pipe.llen(key)
                        pipe.lindex(key, -1)
                answers = pipe.execute()
        size = 2 * (MOST_URGENT + 1)
        return {
            queue: _depth(answers[start : start + size])
            for queue, start in zip(queues, range(0, len(answers), size), strict=True)
        }

    def purge(self, queue: str) -> int:
        with self._producer() as producer:
            channel = producer.channel
            # Not in a transaction, as kombu has it: a Redis that is full would refuse that.
            with channel.conn_or_acquire() as client, client.pipeline(transaction=False) as pipe:
                for priority in range(MOST_URGENT + 1):
                    key = channel._q_for_pri(queue, priority)
                    pipe.llen(key)
                    pipe.delete(key)
                removed: list[int] = pipe.execute()[::2]
        return sum(removed)

    def check_writable(self) -> None:
        """Raise ``BrokerUnavailableError`` where Redis does not answer, or refuses writes."""
        with self._producer() as producer, producer.channel.conn_or_acquire() as client:
            # XX updates only existing members, and no member has this name.
            client.zadd(producer.channel.unacked_index_key, {"": 0}, xx=True)

    def memory(self) -> Memory:
        with self._producer() as producer, producer.channel.conn_or_acquire() as client:
            told = client.info("memory")
        return Memory(
            told["used_memory"], told.get("maxmemory") or None, told.get("maxmemory_policy")
        )

    def renew(self, tags: Iterable[str]) -> None:
        """Renew the lease of held messages.

        ``tags`` are kombu's delivery tags. The lease begins at the broker's present instant,
        whatever this machine's clock says. A tag that was acknowledged meanwhile stays gone;
        one whose lease was lost gets a new one.
        """
        kept = list(tags)
        if not kept:
            return
        with self._producer() as producer:
            channel = producer.channel
            with channel.conn_or_acquire() as client:
                with client.pipeline(transaction=False) as pipe:
                    for tag in kept:
                        pipe.hexists(channel.unacked_key, tag)
                    held = pipe.execute()
                begins = _clock_of(client).timestamp()
                leases = {tag: begins for tag, is_held in zip(kept, held, strict=True) if is_held}
                if leases:
                    client.zadd(channel.unacked_index_key, leases)

    def close(self) -> None:
        """Close this process's connections; the next call opens new ones."""
        if self._pool is not None and self._pid == os.getpid():
            self._pool.force_close_all()
            self._pool.connections.force_close_all()
        self._pool = None

    @contextmanager
    def _producer(self) -> Iterator[Any]:
        try:
            with self._producers().acquire(block=True, timeout=self._timeout) as producer:
                keep_client(producer.channel)
                yield producer
        except (OperationalError, LimitExceeded, RedisError, OSError) as error:
            cause = error.__cause__ if isinstance(error, OperationalError) else error
            raise BrokerUnavailableError(f"Redis: {reason(cause or error)}") from error

    def _producers(self) -> Any:
        # A forked child must not talk on its parent's sockets.
        if self._pool is None or self._pid != os.getpid():
            connection = self._app.connection_for_write(
                transport_options={
                    "socket_timeout": self._timeout,
                    "socket_connect_timeout": self._timeout,
                    "max_retries": 0,
                }
            )
            self._pool = ProducerPool(
                connections=connection.Pool(limit=POOL_LIMIT), limit=POOL_LIMIT
            )
            self._pid = os.getpid()
        return self._pool


def _clock_of(client: Any) -> datetime:
    seconds, microseconds = client.time()
    return EPOCH + timedelta(seconds=seconds, microseconds=microseconds)


def _depth(answers: Sequence[Any]) -> QueueDepth:
    """The sum of a queue's lists; ``answers`` holds the length and the next of each in turn."""
    stamps = [_stamp(raw) for raw in answers[1::2]]
    known = [stamp for stamp in stamps if isinstance(stamp, datetime)]
    return QueueDepth(waiting=sum(answers[::2]), oldest=min(known, default=None))


def _task_id(held: bytes) -> str | None:
    try:
        task_id = json.loads(held)[0]["headers"]["id"]
    except NOT_OURS:
        return None
    return task_id if isinstance(task_id, str) else None


def _stamp(raw: bytes | None) -> datetime | NoStamp:
    if raw is None:
        return NoStamp.EMPTY
    try:
        stamp = datetime.fromisoformat(json.loads(raw)["headers"][PUBLISHED_AT_HEADER])
    except NOT_OURS:
        return NoStamp.FOREIGN
    return stamp if stamp.tzinfo is not None else NoStamp.FOREIGN
