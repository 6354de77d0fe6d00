"""Stand-ins that behave as the real thing does where the outbox can see it."""

from collections import defaultdict, deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest

from app import clock
from app.adapters.slot_cache import CacheUnavailableError
from app.outbox.broker import BrokerUnavailableError, Memory, NoStamp, OutboxMessage, QueueDepth

FOREIGN = object()
"""A message in a list that the outbox did not publish."""


@dataclass
class FakeClock:
    """Puts ``now`` in the place of the real clock."""

    now: datetime

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **duration: float) -> None:
        self.now += timedelta(**duration)

    @classmethod
    def install(cls, monkeypatch: pytest.MonkeyPatch, now: datetime) -> "FakeClock":
        fake = cls(now)
        monkeypatch.setattr(clock, "utcnow", fake)
        return fake


@dataclass
class FakeBroker:
    """Lists that are first in, first out, and messages that workers hold."""

    clock: FakeClock
    lists: dict[tuple[str, int], deque[object]] = field(default_factory=lambda: defaultdict(deque))
    holding: list[OutboxMessage] = field(default_factory=list)
    pushed: list[OutboxMessage] = field(default_factory=list)
    used_bytes: int = 1_000_000
    limit_bytes: int | None = None
    policy: str | None = "noeviction"
    down: bool = False
    fails_after_push: bool = False
    refuses: dict[str, Exception] = field(default_factory=dict)
    """Entries with which a push fails, and how."""
    full: bool = False
    """It answers questions and takes no message."""
    ends_after: int | None = None
    """After so many messages more it is ``down`` or ``full``, as ``ends_as`` says."""
    ends_as: str = "down"

    def now(self) -> datetime:
        self._answer()
        return self.clock.now

    def push(self, messages: Sequence[OutboxMessage]) -> None:
        self._answer()
        if self.full:
            raise BrokerUnavailableError("Redis is full")
        for message in messages:
            if message.id in self.refuses:
                raise self.refuses[message.id]
        if self.ends_after is not None:
            self.ends_after -= len(messages)
            if self.ends_after < 0:
                setattr(self, self.ends_as, True)
                raise BrokerUnavailableError("connection reset")
        for message in messages:
            self.lists[message.queue, message.priority].append(message)
            self.pushed.append(message)
        if self.fails_after_push:
            raise BrokerUnavailableError("the answer was lost")

    def check_writable(self) -> None:
        self._answer()
        if self.full:
            raise BrokerUnavailableError("Redis is full")

    def oldest(self, lists: Sequence[tuple[str, int]]) -> Sequence[datetime | NoStamp]:
        self._answer()
        return [self._stamp(self.lists[key]) for key in lists]

    def held(self) -> set[str]:
        self._answer()
        return {message.id for message in self.holding}

    def depths(self, queues: Sequence[str]) -> Mapping[str, QueueDepth]:
        self._answer()
        return {queue: self._depth(queue) for queue in queues}

    def purge(self, queue: str) -> int:
        self._answer()
        lists = [messages for (name, _), messages in self.lists.items() if name == queue]
        removed = sum(map(len, lists))
        for messages in lists:
            messages.clear()
        return removed

    def memory(self) -> Memory:
        self._answer()
        return Memory(self.used_bytes, self.limit_bytes, self.policy)

    def take(self, queue: str) -> OutboxMessage:
        """Deliver the next message of a queue to a worker, which then holds it."""
        for (name, _), messages in sorted(self.lists.items()):
            if name == queue and messages:
                message = messages.popleft()
                assert isinstance(message, OutboxMessage)
                self.holding.append(message)
                return message
        raise AssertionError(f"nothing waits in {queue}")

    def take_any(self) -> OutboxMessage:
        """Deliver the most urgent message of all queues to a worker, which then holds it."""
        key = min((key for key, messages in self.lists.items() if messages), key=lambda key: key[1])
        return self.take(key[0])

    def waiting(self) -> int:
        return sum(len(messages) for messages in self.lists.values())

    def lose_everything(self) -> None:
        self.lists.clear()
        self.holding.clear()

    def _depth(self, queue: str) -> QueueDepth:
        lists = [messages for (name, _), messages in self.lists.items() if name == queue]
        stamps = [stamp for stamp in map(self._stamp, lists) if isinstance(stamp, datetime)]
        return QueueDepth(sum(map(len, lists)), min(stamps, default=None))

    def _stamp(self, messages: deque[object]) -> datetime | NoStamp:
        if not messages:
            return NoStamp.EMPTY
        oldest = messages[0]
        return oldest.published_at if isinstance(oldest, OutboxMessage) else NoStamp.FOREIGN

    def _answer(self) -> None:
        if self.down:
            raise BrokerUnavailableError("connection refused")


@dataclass
class FakeSlotCache:
    """Notes whose free slots are deleted."""

    deleted: list[int] = field(default_factory=list)
    down: bool = False

    def delete(self, instructor_ids: Collection[int]) -> int:
        if self.down:
            raise CacheUnavailableError("no answer")
        self.deleted += instructor_ids
        return len(instructor_ids)
