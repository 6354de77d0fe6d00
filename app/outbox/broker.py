"""What the outbox asks of a broker, beyond what a Celery task asks of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Protocol

PUBLISHED_AT_HEADER = "outbox_published_at"
"""Message header with the entry's ``published_at`` (ISO 8601); marks a message of the outbox."""

DUE_INSTANT_HEADER = "outbox_due_instant"
"""Message header with the entry's ``due_instant`` (ISO 8601)."""


class BrokerUnavailableError(Exception):
    """The broker did not answer in time. What was pushed may have arrived all the same."""


@dataclass(frozen=True)
class OutboxMessage:
    """A message to be, as the entry has it."""

    id: str
    task: str
    args: Sequence[Any]
    kwargs: dict[str, Any]
    queue: str
    priority: int
    tries: int
    published_at: datetime
    due_instant: datetime | None = None
    trace_id: str | None = None


class NoStamp(Enum):
    """Why the oldest message of a list tells no publishing time."""

    EMPTY = "the list is empty"
    FOREIGN = "the message was not published by the outbox"


@dataclass(frozen=True)
class QueueDepth:
    """What waits in a queue, over all its urgencies."""

    waiting: int
    """Messages that no worker has taken."""
    oldest: datetime | None
    """When the longest waiting of them was published; ``None`` where nobody can tell: the
    queue is empty, or the next of each list did not come from the outbox."""


@dataclass(frozen=True)
class Memory:
    """Of a Redis, in bytes."""

    used_bytes: int
    limit_bytes: int | None
    """``None`` where it has no limit of its own."""
    policy: str | None
    """Its ``maxmemory-policy``: what it does at the limit; ``None`` where it does not tell."""

    @property
    def risk(self) -> str | None:
        """One line where it makes room at the limit by deleting any key, such as a queue.

        The ``volatile-`` policies delete only what expires, and no queue does.
        https://redis.io/docs/latest/develop/reference/eviction/
        """
        if self.limit_bytes is None or not (self.policy or "").startswith("allkeys-"):
            return None
        return (
            f"Redis drops messages when it is full (maxmemory-policy {self.policy}): "
            "set it to noeviction"
        )


class Broker(Protocol):
    """Redis in production, a model of it in a replay. Every method may raise
    ``BrokerUnavailableError`` and returns within the publish timeout otherwise."""

    def now(self) -> datetime:
        """The broker's own clock: the one clock that all publishers share."""

    def push(self, messages: Sequence[OutboxMessage]) -> None:
        """Append the messages to their lists, in order, in as few round trips as possible."""

    def check_writable(self) -> None:
        """Raise ``BrokerUnavailableError`` where the broker takes no message, of any size."""

    def oldest(self, lists: Sequence[tuple[str, int]]) -> Sequence[datetime | NoStamp]:
        """For each (queue, priority): when the message that is next to go was published."""

    def held(self) -> set[str]:
        """Ids of the messages that a living worker has taken and not acknowledged yet."""

    def depths(self, queues: Sequence[str]) -> Mapping[str, QueueDepth]:
        """What waits in each of the queues, in one round trip."""

    def purge(self, queue: str) -> int:
        """Remove every message that waits in the queue, at any urgency; returns how many.

        Messages that a worker holds are not in the queue, and stay.
        """

    def memory(self) -> Memory:
        """How full it is. Raises ``BrokerUnavailableError`` also where it does not tell us."""
