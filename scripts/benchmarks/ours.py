"""The real app, with the benchmarks' tasks beside its own.

``called`` tasks come as ``celery call`` sends them; ``guarded`` ones through the outbox, with a
row that is marked done in a transaction.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

from celery import Task
from celery.worker.consumer import Consumer
from sqlalchemy import select

from app import clock, db, outbox
from app.models import OUTBOX_ENTRIES
from app.outbox import retention
from app.outbox.broker import OutboxMessage
from app.outbox.pump import Pump
from app.routing import QUEUES, QueueSpec, queue_for, wire_priority
from app.services import cleanup
from app.settings import load_settings
from app.tasks import BaseTask, celery_app, envelopes, messages, redis_clients
from app.tasks.broker import RedisBroker
from app.tasks.consumer import OutboxConsumer
from app.tasks.scheduler import OutboxScheduler
from scripts.benchmarks import environment
from scripts.benchmarks.runs import BACKLOG, BUSY_SECONDS, mark


def name_in(spec: QueueSpec) -> str:
    """A no-op in that queue: its module is what routes it."""
    return f"app.tasks.{spec.modules[0]}.benchmark"


WITH_ROW = "row "
SLOW_TASK = "scripts.benchmarks.ten_ms"
OPTIONS = {"ignore_result": True, "max_retries": BaseTask.max_retries}

if environment.fastest():
    celery_app.conf.update(
        task_acks_late=False,
        worker_prefetch_multiplier=64,
        worker_send_task_events=False,
        task_track_started=False,
    )


if environment.without("events"):
    celery_app.conf.worker_send_task_events = False
if environment.without("started"):
    celery_app.conf.task_track_started = False
if environment.without("metrics"):
    # Bound before the first task is made of the class.
    BaseTask.Request = "app.tasks.request:OutboxRequest"
if environment.without("grouped events"):
    OutboxConsumer.on_send_event_buffered = Consumer.on_send_event_buffered  # type: ignore[method-assign]
if environment.without("kept client"):
    redis_clients._KOMBUS_CREATE_CLIENT = None
if environment.without("checks"):
    messages.check = lambda message: None
if environment.without("checks") or environment.without("envelope check"):
    envelopes.check = lambda item: None


@celery_app.task(base=BaseTask, bind=True, name="scripts.benchmarks.noop", **OPTIONS)
def noop(self: BaseTask, published_at: float) -> None:
    mark(published_at)


@celery_app.task(base=Task, bind=True, name="scripts.benchmarks.bare", **OPTIONS)  # type: ignore[call-overload,untyped-decorator]
def bare(self: Task, published_at: float) -> None:  # type: ignore[type-arg]
    mark(published_at)


@celery_app.task(base=BaseTask, bind=True, name="scripts.benchmarks.guarded", **OPTIONS)
def guarded(self: BaseTask, published_at: float) -> None:
    with self.transaction():
        mark(published_at)


@celery_app.task(base=BaseTask, bind=True, name="scripts.benchmarks.ten_ms", **OPTIONS)
def ten_ms(self: BaseTask, published_at: float) -> None:
    mark(published_at)
    time.sleep(0.01)


@celery_app.task(base=BaseTask, bind=True, name="scripts.benchmarks.guarded_ten_ms", **OPTIONS)
def guarded_ten_ms(self: BaseTask, published_at: float) -> None:
    # The work comes first: a writer that sleeps in its transaction keeps others waiting.
    time.sleep(0.01)
    with self.transaction():
        mark(published_at)


@celery_app.task(base=BaseTask, bind=True, name="scripts.benchmarks.hang", **OPTIONS)
def hang(self: BaseTask, published_at: float) -> None:
    mark(published_at)
    time.sleep(BUSY_SECONDS)


@celery_app.task(base=BaseTask, bind=True, name="scripts.benchmarks.guarded_hang", **OPTIONS)
def guarded_hang(self: BaseTask, published_at: float) -> None:
    with self.transaction():
        mark(published_at)
        time.sleep(BUSY_SECONDS)


def _in_queue(self: BaseTask, published_at: float) -> None:
    mark(published_at)


for _spec in QUEUES:
    celery_app.task(base=BaseTask, bind=True, name=name_in(_spec), **OPTIONS)(_in_queue)


def publish(task: str, count: int) -> None:
    """``task`` is the last word of its name; "row noop" and what is guarded have a row."""
    name = f"scripts.benchmarks.{task.removeprefix(WITH_ROW)}"
    if task.startswith(("guarded", WITH_ROW)):
        enqueue(name, count)
    else:
        call(name, count)


def call_one_by_one(name: str, count: int) -> None:
    """Publish as ``celery call`` does."""
    for _ in range(count):
        celery_app.send_task(name, (time.time(),), ignore_result=True)


def enqueue_one_by_one(name: str, count: int) -> None:
    """Plan each in a transaction of its own, which publishes it after its commit."""
    for _ in range(count):
        enqueue(name, 1)


def enqueue_for_the_pump(name: str, count: int) -> None:
    """Plan in one transaction of a process that does not publish."""
    outbox.attach(None)
    enqueue(name, count)


def call(name: str, count: int) -> None:
    """Publish as ``celery call`` does, but in one pipeline."""
    app: Any = celery_app
    with app.producer_pool.acquire(block=True) as producer, producer.batch(count):
        for _ in range(count):
            app.send_task(
                name, (time.time(),), task_id=str(uuid4()), ignore_result=True, producer=producer
            )


def enqueue(name: str, count: int) -> None:
    """Plan in one transaction, which publishes after its commit."""
    with db.transaction() as session:
        for _ in range(count):
            outbox.enqueue(session, name, time.time())


def publish_first(of_lists: list[tuple[str, str, int]]) -> None:
    """The first message of each backlog, for others to be copies of: its task's name, queue and
    priority."""
    for name, queue, priority in of_lists:
        celery_app.send_task(name, (BACKLOG,), queue=queue, priority=priority, ignore_result=True)


def publish_stamped(name: str) -> None:
    """One message as the outbox publishes it, without the row that belongs to it."""
    settings = load_settings()
    redis = RedisBroker(celery_app, timeout=settings.publish_timeout_seconds)
    spec = queue_for(name)
    redis.push(
        [
            OutboxMessage(
                id=str(uuid4()),
                task=name,
                args=[BACKLOG],
                kwargs={},
                queue=spec.name,
                priority=wire_priority(spec.urgency),
                tries=0,
                published_at=redis.now(),
            )
        ]
    )


def publish_paced(name: str, count: int, pause: float) -> None:
    """One by one, ``pause`` seconds between two."""
    for _ in range(count):
        celery_app.send_task(name, (time.time(),), ignore_result=True)
        time.sleep(pause)


def start_storm() -> None:
    """What beat does at the due instant."""
    with db.transaction() as session:
        outbox.enqueue(session, "app.tasks.bookings.send_due_reminders")


def ticks(count: int) -> list[float]:
    """Seconds of each of beat's ticks, the first one left out: it connects."""
    scheduler = OutboxScheduler(celery_app)
    scheduler.tick()
    return [_seconds(scheduler.tick) for _ in range(count)]


def resend_look_ups(count: int) -> list[float]:
    """Seconds of each of the pump's rounds: what is unpublished, and what is gone."""
    pump = OutboxScheduler(celery_app).pump
    pump.run()
    return [_seconds(pump.run) for _ in range(count)]


def relay_backlog(batches: int, urgent: int) -> dict[str, Any]:
    """Publish one batch of what is due, which connects, then ``batches`` more.

    Then plan ``urgent`` entries one after another, each as a batch begins. Returns the ``rate``
    of the batches (entries a second), the processor time of this process for each entry
    (``cpu_ms``), and for each urgent entry the seconds from its due instant until it is pushed
    (``waits``).
    """
    outbox.attach(None)  # only the relay publishes
    pump = OutboxScheduler(celery_app).pump
    pump.run()
    published = 0
    began, cpu_began = time.perf_counter(), time.process_time()
    for _ in range(batches):
        published += pump.run().published
    return {
        "rate": published / (time.perf_counter() - began),
        "cpu_ms": 1000 * (time.process_time() - cpu_began) / published,
        "waits": [_urgent_wait(pump) for _ in range(urgent)],
    }


def _urgent_wait(pump: Pump) -> float:
    # Due in a moment: an entry that is due at once is left to its process for two seconds.
    due_at = clock.utcnow() + timedelta(milliseconds=100)
    with db.transaction() as session:
        entry_id = outbox.enqueue(session, name_in(QUEUES[0]), time.time(), at=due_at)
    chosen = select(OUTBOX_ENTRIES.c.published_at).where(OUTBOX_ENTRIES.c.id == entry_id)
    while True:
        if not pump.run().published:
            raise RuntimeError("nothing is left for the urgent entry to wait behind")
        with db.reading_tables() as connection:
            if connection.scalar(chosen) is not None:
                return (clock.utcnow() - due_at).total_seconds()


def cleanup_batches(count: int) -> list[float]:
    """Seconds of each batch of old rows that is deleted, ``cleanup.BATCH`` in each."""

    def batch() -> None:
        with db.transaction() as session:
            retention.purge(session, before=clock.utcnow(), limit=cleanup.BATCH)

    return [_seconds(batch) for _ in range(count)]


def _seconds(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began
