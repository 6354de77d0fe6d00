"""What became of each message of this process, as the workers' events tell it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from app import trace
from app.outbox import PUBLISHED_AT_HEADER

ENDED = frozenset(
    {"task-succeeded", "task-failed", "task-retried", "task-rejected", "task-revoked"}
)
EVENTS = ENDED | {"task-started"}
"""Types of events that tell something here (Celery docs, "Event Reference")."""


class Measure(StrEnum):
    """What is measured of a task; also the type of the figure in locust's tables."""

    IN_QUEUE = "in queue"
    """From the publishing time in the message to the worker's stamp of the start."""
    RUN = "run"
    """As the process that ran it measured it; from stamp to stamp where it failed."""


Record = Callable[[Measure, str, float | None, str | None], None]
"""Takes a measure, a queue, seconds where they are known, and what failed."""


class Ledger:
    """Turns events of workers into waits and runs of the work with one trace id.

    Message ids are expected before they are published, since the event of a start may come
    before the publisher goes on.
    """

    def __init__(self, trace_id: str, record: Record) -> None:
        self.trace_id = trace_id
        self.published: Counter[str] = Counter()
        """Messages by queue."""
        self.most_negative_wait = 0.0
        """Seconds; less than zero where a worker's clock is behind Redis's."""
        self._record = record
        self._waiting: dict[str, tuple[str, datetime | None]] = {}
        self._running: dict[str, tuple[str, float]] = {}

    def expect(self, ids: Iterable[str], queue: str, *, published_at: datetime | None) -> None:
        """Messages that are about to be published; ``None`` where somebody else does it."""
        for each in ids:
            known = self._waiting.get(each)
            if known is None or known[1] is None:
                self._waiting[each] = (queue, published_at)
                self.published[queue] += published_at is not None

    def forget(self, ids: Iterable[str]) -> None:
        """They were not published after all."""
        for each in ids:
            queue, published_at = self._waiting.pop(each, ("", None))
            self.published[queue] -= published_at is not None

    def still_waiting(self, ids: Collection[str]) -> set[str]:
        """Those of which no start has been heard."""
        return {each for each in ids if each in self._waiting}

    def published_of(self, ids: Collection[str]) -> list[tuple[str, str, datetime]]:
        """Those of which no start has been heard, with their queues and stamps."""
        found = ((each, *self._waiting[each]) for each in ids if each in self._waiting)
        return [(each, queue, stamp) for each, queue, stamp in found if stamp is not None]

    @property
    def waiting(self) -> Counter[str]:
        """Messages of which no start has been heard, by queue."""
        return Counter(queue for queue, _ in self._waiting.values())

    @property
    def running(self) -> Counter[str]:
        """Runs of which no end has been heard, by queue."""
        return Counter(queue for queue, _ in self._running.values())

    def hear(self, event: Mapping[str, Any]) -> None:
        """Take an event of ``EVENTS``; those of others' work say nothing here."""
        if event["type"] == "task-started":
            self._started(event)
        elif (started := self._running.pop(event["uuid"], None)) is not None:
            queue, at = started
            failed = event["type"] in {"task-failed", "task-rejected", "task-revoked"}
            seconds = event.get("runtime")
            self._record(
                Measure.RUN,
                queue,
                max(0.0, event["timestamp"] - at if seconds is None else seconds),
                str(event.get("exception") or event["type"]) if failed else None,
            )

    def never_started(self, found: Iterable[tuple[str, str, datetime]], *, now: datetime) -> None:
        """Record messages that still lay in their queues at the end: id, queue, stamp.

        Their age is the least that they would have waited. Left out, they would make the
        longest waits vanish from the figures.
        """
        for task_id, queue, published_at in found:
            self._waiting.pop(task_id, None)
            self._record(Measure.IN_QUEUE, queue, (now - published_at).total_seconds(), None)

    def lose_sight(self, why: str) -> Counter[str]:
        """Record each message of which no start was heard as a failure; how many, by queue.

        Without them the figures would not be whole, and seem to be.
        """
        lost = self.waiting
        for queue, published_at in self._waiting.values():
            error = why if published_at is not None else "planned, and not published"
            self._record(Measure.IN_QUEUE, queue, None, error)
        self._waiting.clear()
        return lost

    def _started(self, event: Mapping[str, Any]) -> None:
        queue, published_at = self._waiting.pop(event["uuid"], (None, None))
        if queue is None and event.get(trace.HEADER) != self.trace_id:
            return
        stamp = event.get(PUBLISHED_AT_HEADER)
        # A worker of an older version does not repeat what stood in the message.
        published_at = datetime.fromisoformat(stamp) if stamp else published_at
        queue = event.get("queue") or queue
        if published_at is None or queue is None:
            return
        seconds = event["timestamp"] - published_at.timestamp()
        self.most_negative_wait = min(self.most_negative_wait, seconds)
        self._record(Measure.IN_QUEUE, queue, max(0.0, seconds), None)
        self._running[event["uuid"]] = (queue, event["timestamp"])
