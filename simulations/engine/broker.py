"""The broker: kombu's own Redis transport, over a Redis in memory or a real one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Protocol

from kombu.transport import redis as kombu_redis

from simulations.engine.loop import EventLoop
from simulations.engine.memory_redis import MemoryRedis
from simulations.engine.real_redis import RealRedis
from simulations.engine.trace import Trace

UNACKED_INDEX = "unacked_index"


MessageObserver = Callable[[Mapping[str, Any]], None]
"""Told the headers of each message as it is published, in the process that does it."""


class Waiter(Protocol):
    """A worker that waits for a message."""

    def serves(self, queue: str) -> bool: ...

    def wake(self) -> None: ...


class VirtualBroker:
    """One Redis, as all simulated processes see it.

    ``url`` names a real server with an empty database; without it everything is in memory.
    """

    def __init__(
        self,
        loop: EventLoop,
        trace: Trace,
        *,
        url: str | None = None,
        transport_options: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.loop = loop
        self.transport_options = transport_options
        self.trace = trace
        self._outages = 0
        self.server: Any = (
            RealRedis.connect(url, self._seconds) if url else MemoryRedis(self._seconds)
        )
        self.server.refuse_when(self._refuses)
        self.server.observe_locks(self._locked)
        self.server.observe_pushes(lambda key: self.pushed(key.partition(VirtualChannel.sep)[0]))
        self._lock_dies = 0
        self._waiting: list[Waiter] = []
        self._observers: list[MessageObserver] = []
        self._duplicate_after: int | None = None
        self.channel_class: type[VirtualChannel] = type(
            "Channel", (VirtualChannel,), {"broker": self}
        )
        self.transport_class: type[kombu_redis.Transport] = type(
            "Transport", (kombu_redis.Transport,), {"Channel": self.channel_class}
        )

    def _seconds(self) -> float:
        return self.loop.now.timestamp()

    def _refuses(self) -> bool:
        # Each command is a place at which a process can be killed.
        self.loop.checkpoint()
        return self.down

    def observe(self, observer: MessageObserver) -> None:
        """Tell ``observer`` of each message that is published from now on."""
        self._observers.append(observer)

    def wait(self, waiter: Waiter) -> None:
        """Let ``waiter`` be woken by the next message for it, in turn with the others."""
        if waiter not in self._waiting:
            self._waiting.append(waiter)

    def stop_waiting(self, waiter: Waiter) -> None:
        if waiter in self._waiting:
            self._waiting.remove(waiter)

    def pushed(self, queue: str) -> None:
        """Wake who has waited longest: Redis serves blocked clients in their order."""
        for waiter in self._waiting:
            if waiter.serves(queue):
                self._waiting.remove(waiter)
                waiter.wake()
                return

    @property
    def down(self) -> bool:
        """Whether every command is refused."""
        return self._outages > 0

    def go_down(self) -> None:
        """Refuse every command; who waits for a message finds its connection broken."""
        self._outages += 1
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.wake()

    def come_back(self, *, emptied: bool = False) -> None:
        """End one outage; what went down twice is back after the second."""
        self._outages -= 1
        if emptied:
            self.empty()

    def empty(self) -> None:
        """Lose everything."""
        self.trace.emit("emptied")
        with self.unguarded():
            self.server.flushdb()

    @contextmanager
    def unguarded(self) -> Iterator[None]:
        """Commands inside are the observer's: they always work and kill nobody."""
        self.server.refuse_when(lambda: False)
        try:
            yield
        finally:
            self.server.refuse_when(self._refuses)

    def close(self) -> None:
        """Delete what the replay left."""
        with self.unguarded():
            self.server.flushdb()
            if isinstance(self.server, RealRedis):
                self.server.connection = None
                self.server.close()

    def held_since(self) -> float | None:
        """The oldest lease (epoch, seconds) of a message that a worker holds."""
        with self.unguarded():
            if isinstance(self.server, MemoryRedis):
                return min(
                    self.server.keys.sorted_sets.get(UNACKED_INDEX, {}).values(), default=None
                )
            oldest = self.server.zrange(UNACKED_INDEX, 0, 0, withscores=True)
            return oldest[0][1] if oldest else None

    def has_waiting(self, queues: list[str]) -> bool:
        """Whether a message waits in one of the queues."""
        steps = self.priority_steps
        keys = [self.key(queue, step) for queue in queues for step in steps]
        with self.unguarded():
            return bool(self.server.exists(*keys))

    @property
    def priority_steps(self) -> list[int]:
        return list(self.transport_options.get("priority_steps", VirtualChannel.priority_steps))

    @staticmethod
    def key(queue: str, priority: int) -> str:
        """kombu's list of a queue for one of the priority steps."""
        return f"{queue}{VirtualChannel.sep}{priority}" if priority else queue

    def published(self, queue: str, message: dict[str, Any]) -> None:
        headers = message.get("headers", {})
        self.trace.emit(
            "published",
            task=headers.get("task"),
            id=headers.get("id"),
            queue=queue,
            priority=message["properties"].get("priority", 0),
        )
        for observer in self._observers:
            observer(headers)
        self._maybe_duplicate(queue, message)

    def kill_next_holder(self) -> None:
        """Kill the next process that takes a lock, while it holds it."""
        self._lock_dies += 1

    def _locked(self, name: str) -> None:
        holder = self.loop.current
        if self._lock_dies and holder is not None:
            self._lock_dies -= 1
            self.trace.emit("orphaned", lock=name, by=holder.name)
            holder.kill()

    def duplicate_next(self, after: int) -> None:
        """Append a copy of the message that is published after so many others."""
        self._duplicate_after = after

    def _maybe_duplicate(self, queue: str, message: dict[str, Any]) -> None:
        if self._duplicate_after is None:
            return
        if self._duplicate_after:
            self._duplicate_after -= 1
            return
        self._duplicate_after = None
        copy = json.loads(json.dumps(message))
        copy["properties"]["delivery_tag"] += "-again"
        priority = message["properties"].get("priority") or 0
        with self.unguarded():
            self.server.lpush(self.key(queue, priority), json.dumps(copy))
        self.trace.emit("duplicated", id=message["headers"].get("id"), queue=queue)


class _Batch(kombu_redis.PublishBatch):  # type: ignore[name-defined,misc]
    """A pipeline of publications that are told of once they have been executed."""

    def __init__(self, channel: VirtualChannel, max_size: int) -> None:
        super().__init__(channel, max_size)
        self.collected: list[tuple[str, dict[str, Any]]] = []

    def flush(self) -> None:
        super().flush()
        told, self.collected = self.collected, []
        for queue, message in told:
            self.channel.broker.published(queue, message)


class VirtualChannel(kombu_redis.Channel):
    """kombu's channel, which tells the broker what it did."""

    broker: VirtualBroker
    on_credit: Callable[[], None] | None = None
    """Called when a message was acknowledged: another one may be taken."""
    supports_batch_publish = True

    def _create_client(self, asynchronous: bool = False) -> Any:
        return self.broker.server

    def _close_clients(self) -> None:
        """Leave the one client to the others."""

    def create_publish_batch(self, max_size: int) -> _Batch:
        return _Batch(self, max_size)

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        batch = kwargs.get("_publish_batch")
        super()._put(queue, message, **kwargs)
        if batch is not None:
            batch.collected.append((queue, message))
        else:
            self.broker.published(queue, message)

    def _do_restore_message(
        self, payload: Any, exchange: str, routing_key: str, pipe: Any, leftmost: bool = False
    ) -> None:
        super()._do_restore_message(  # type: ignore[misc]
            payload, exchange, routing_key, pipe, leftmost
        )
        headers = payload["headers"]
        self.broker.trace.emit(
            "redelivered", task=headers.get("task"), id=headers.get("id"), queue=routing_key
        )

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        delivered: Any = self.qos._delivered
        message = delivered.get(delivery_tag)
        super().basic_ack(delivery_tag, multiple)
        if message is not None:
            running = self.broker.loop.current
            self.broker.trace.emit(
                "acked",
                id=message.headers.get("id"),
                worker=None if running is None else running.name,
            )
        if self.on_credit is not None:
            self.on_credit()
