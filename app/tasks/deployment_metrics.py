"""Gauges of the whole deployment, read from Redis and the database when somebody asks.

Every worker and beat tells the same, so a query takes their ``max``, never their sum; only the
clock is its own machine's. What cannot be read in time is left out: a page without a gauge is
better than no page.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Event, Lock, Thread
from typing import Generic, TypeVar

from celery import Celery
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from app import clock, db, routing
from app.models import OutboxState
from app.outbox.broker import Broker, Memory, QueueDepth
from app.outbox.figures import Deaths, Retrying, count_states
from app.outbox.schedule import Standing, standings
from app.services import email_claims, health, queues
from app.tasks import metrics, timetable
from app.tasks.due import next_due

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 2.0
"""A page waits so long for an answer, and is then given without it."""
FRESH_SECONDS = 3.0
"""Answers are given again for so long."""
SHARE = 20
"""And for so many times as long as it took to get them: reading costs at most a twentieth."""

UNCERTAIN_FOR = timedelta(days=1)
"""A mail that may have gone out twice is told for so long."""

T = TypeVar("T")


class Answer(Generic[T]):
    """What ``read`` returned last, read again when it is old; ``None`` where it fails or hangs."""

    def __init__(self, what: str, read: Callable[[], T]) -> None:
        self._what = what
        self._read = read
        self._lock = Lock()
        self._done: Event | None = None
        self._value: T | None = None
        self._fresh_until = float("-inf")
        self._failing = False

    def get(self, patience: float = PATIENCE_SECONDS) -> T | None:
        """The answer, after at most ``patience`` seconds. Raises nothing."""
        with self._lock:
            if time.monotonic() < self._fresh_until:
                return self._value
            done = self._done
            if done is None or done.is_set():
                done = self._done = Event()
                # A thread of its own, so that a peer which hangs holds up nobody else.
                Thread(target=self._refresh, args=(done,), daemon=True).start()
        return self._value if done.wait(patience) else None

    def _refresh(self, done: Event) -> None:
        started = time.monotonic()
        try:
            self._value = self._read()
            self._failing = False
        except Exception as error:
            self._value = None
            if not self._failing:
                logger.warning("metrics: %s cannot be read: %s", self._what, error)
            self._failing = True
        finally:
            now = time.monotonic()
            self._fresh_until = now + max(FRESH_SECONDS, SHARE * (now - started))
            done.set()


@dataclass(frozen=True)
class Records:
    """What the database tells."""

    states: Mapping[OutboxState, int]
    deaths: Mapping[str, int]
    lags: Mapping[str, float]
    """Seconds for which each beat entry has been overdue."""
    definitions: Mapping[str, int]
    """How many definitions of each beat entry beats have."""
    pending: health.Outbox
    retrying: Mapping[str, Retrying]
    paused: Mapping[str, float]
    """Seconds for which each queue has been paused; 0: it is not."""
    uncertain: int
    """Mails of the last day that may have gone out twice."""


class DeploymentMetrics(Collector):
    """The gauges, for one registry."""

    def __init__(self, app: Celery, broker: Broker) -> None:
        self._app = app
        self._broker = broker
        self._deaths = Deaths(since=clock.utcnow())
        self._depths: Answer[Mapping[str, QueueDepth]] = Answer("Redis", self._read_depths)
        # Of its own: a user of Redis may be allowed to queue and not to ask this.
        self._memory: Answer[Memory] = Answer("the memory of Redis", self._read_memory)
        self._clock: Answer[float] = Answer("the clock of Redis", self._read_clock)
        self._records: Answer[Records] = Answer("the database", self._read_records)

    def collect(self) -> Iterable[Metric]:
        yield from _queues(self._depths.get())
        yield from _memory(self._memory.get())
        yield _clock(self._clock.get())
        yield from _outbox(self._records.get())

    def _read_depths(self) -> Mapping[str, QueueDepth]:
        return self._broker.depths(routing.QUEUE_NAMES)

    def _read_memory(self) -> Memory:
        return self._broker.memory()

    def _read_clock(self) -> float:
        broker_now = self._broker.now()
        return (clock.utcnow() - broker_now).total_seconds()

    def _read_records(self) -> Records:
        now = clock.utcnow()
        with db.no_fork(), db.reading() as session:
            entries = standings(session, now=now)
            found = health.read(session, now=now, standing=entries)
            return Records(
                states=count_states(session),
                # From 0 on, or the first of a task would be no increase.
                deaths={
                    **dict.fromkeys(self._own_tasks(), 0),
                    **self._deaths.look(session, now=now),
                },
                lags=self._lags(entries, now=now),
                definitions={
                    # One that only an older version's beat has is not among them.
                    name: len(entry.kept) + all(not each.in_force for each in entry.kept)
                    for name, entry in entries.items()
                    if entry.kept
                },
                pending=found.outbox,
                # A series of 0 for each task, so that a graph shows when it began.
                retrying={
                    **dict.fromkeys(self._own_tasks(), Retrying(0, None)),
                    **found.retrying,
                },
                paused={spec.name: 0.0 for spec in routing.QUEUES}
                | {
                    name: (now - since).total_seconds()
                    for name, since in queues.paused(session).items()
                },
                uncertain=email_claims.count_uncertain(session, since=now - UNCERTAIN_FOR),
            )

    def _own_tasks(self) -> list[str]:
        return [name for name in self._app.tasks if not name.startswith("celery.")]

    def _lags(self, standing: Mapping[str, Standing], *, now: datetime) -> dict[str, float]:
        lags = {}
        for name, entry in timetable.entries_of(self._app).items():
            if name in standing:
                due = standing[name].next_due
                if due is None:
                    due = next_due(entry.schedule, standing[name].seen.last_due)
                lags[name] = max(0.0, (now - due).total_seconds())
        return lags


def _queues(depths: Mapping[str, QueueDepth] | None) -> Iterable[Metric]:
    waiting = GaugeMetricFamily(
        "celery_queue_depth",
        "Messages that wait in a queue, over all its priority steps.",
        labels=["queue"],
    )
    oldest = GaugeMetricFamily(
        "celery_queue_oldest_seconds",
        "Age of the oldest outbox message that is next in one of the queue's lists; 0: none.",
        labels=["queue"],
    )
    now = clock.utcnow()
    for queue, depth in (depths or {}).items():
        waiting.add_metric([queue], depth.waiting)
        age = (now - depth.oldest).total_seconds() if depth.oldest is not None else 0.0
        oldest.add_metric([queue], max(0.0, age))
    return waiting, oldest


def _memory(memory: Memory | None) -> Iterable[Metric]:
    used = GaugeMetricFamily("celery_broker_memory_bytes", "Memory that Redis uses.")
    limit = GaugeMetricFamily(
        "celery_broker_memory_limit_bytes",
        "Memory that Redis may use; missing: as much as it gets.",
    )
    if memory is not None:
        used.add_metric([], memory.used_bytes)
        if memory.limit_bytes is not None:
            limit.add_metric([], memory.limit_bytes)
    return used, limit


def _clock(offset: float | None) -> Metric:
    ahead = GaugeMetricFamily(
        "clock_offset_seconds",
        "Seconds by which the clock of this process's machine is ahead of Redis's.",
    )
    if offset is not None:
        ahead.add_metric([], offset)
    return ahead


def _outbox(records: Records | None) -> Iterable[Metric]:
    rows = GaugeMetricFamily("outbox_rows", "Entries of the outbox, by state.", labels=["state"])
    stages = GaugeMetricFamily(
        "outbox_pending_rows",
        "Pending entries: published (in the broker), unpublished (due), later (not due yet).",
        labels=["stage"],
    )
    unpublished = GaugeMetricFamily(
        "outbox_unpublished_seconds",
        "For how long the oldest entry that is not published has been due; 0: none.",
    )
    retrying = GaugeMetricFamily(
        "outbox_retrying",
        "Pending entries whose last attempt failed, and whose next one does not wait for a rate "
        "limit.",
        labels=["task", "queue"],
    )
    retrying_for = GaugeMetricFamily(
        "outbox_retrying_oldest_seconds",
        "Since the first failed attempt of the oldest of them; 0: none. Up to "
        f"{health.MOST_REFUSED} mails that the server refuses one by one do not count.",
        labels=["task", "queue"],
    )
    letters = CounterMetricFamily(
        "dead_letters_total",
        "Dead letters made since this process started, by any process.",
        labels=["task"],
    )
    lag = GaugeMetricFamily(
        "celery_beat_lag_seconds",
        "Seconds for which a beat entry has been overdue; it grows while no beat works.",
        labels=["entry"],
    )
    definitions = GaugeMetricFamily(
        "celery_beat_definitions",
        "Definitions of a beat entry that running beats have; more than 1: they disagree.",
        labels=["entry"],
    )
    paused = GaugeMetricFamily(
        "celery_queue_paused_seconds",
        "For how long a queue has been paused; 0: it is not.",
        labels=["queue"],
    )
    uncertain = GaugeMetricFamily(
        "mails_uncertain", "Mails sent within the last day that may have gone out twice."
    )
    if records is not None:
        for stage in ("published", "unpublished", "later"):
            stages.add_metric([stage], getattr(records.pending, stage))
        unpublished.add_metric([], records.pending.oldest_unpublished_seconds or 0.0)
        for queue, seconds in records.paused.items():
            paused.add_metric([queue], max(0.0, seconds))
        uncertain.add_metric([], records.uncertain)
        for state, count in records.states.items():
            rows.add_metric([state], count)
        numbers, ages = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
        for task, entries in records.retrying.items():
            labels = (metrics.task_label(task), routing.queue_for(task).name)
            numbers[labels] += entries.number
            ages[labels] = max(ages[labels], round(health.failing_seconds(entries) or 0))
        for labels, number in numbers.items():
            retrying.add_metric(labels, number)
            retrying_for.add_metric(labels, ages[labels])
        by_label: dict[str, int] = {}
        for task, count in records.deaths.items():
            label = metrics.task_label(task)
            by_label[label] = by_label.get(label, 0) + count
        for task, count in by_label.items():
            letters.add_metric([task], count)
        for entry, seconds in records.lags.items():
            lag.add_metric([entry], seconds)
        for entry, number in records.definitions.items():
            definitions.add_metric([entry], number)
    return (
        rows,
        stages,
        unpublished,
        retrying,
        retrying_for,
        letters,
        lag,
        definitions,
        paused,
        uncertain,
    )
