"""Celery as its user guide has it: ``celery -A scripts.benchmarks.peers.stock_celery worker``.

Survives a SIGKILL with ``task_acks_late`` and a prefetch of 1, as the guide's "Optimizing"
and the FAQ recommend for that. Queues are more urgent by the transport's priorities, as "Redis
Message Priorities" in the guide's "Routing Tasks" has them.
"""

from __future__ import annotations

import time

from celery import Celery

from scripts.benchmarks import environment, lesson_mails
from scripts.benchmarks.runs import BACKLOG, BUSY_SECONDS, mark

app = Celery("stock", broker=environment.redis_url(), set_as_current=False)
app.conf.update(
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
    broker_transport_options={
        "priority_steps": list(range(10)),
        "sep": ":",
        "queue_order_strategy": "priority",
        "visibility_timeout": 600,
    },
)
if not environment.fastest():
    app.conf.update(
        task_acks_late=True, worker_prefetch_multiplier=1, task_reject_on_worker_lost=True
    )


@app.task(name="noop", shared=False)
def noop(published_at: float) -> None:
    mark(published_at)


@app.task(name="ten_ms", shared=False)
def ten_ms(published_at: float) -> None:
    mark(published_at)
    time.sleep(0.01)


@app.task(name="hang", shared=False)
def hang(published_at: float) -> None:
    mark(published_at)
    time.sleep(BUSY_SECONDS)


@app.task(name="send_reminder", shared=False)
def send_reminder(email_id: int) -> None:
    lesson_mails.send(email_id)


@app.task(name="send_due_reminders", shared=False)
def send_due_reminders() -> None:
    for email_id in lesson_mails.planned():
        send_reminder.delay(email_id)


def publish(task: str, count: int) -> None:
    called = app.tasks[task]
    for _ in range(count):
        called.delay(time.time())


def publish_with_priority(urgent: bool, count: int, pause: float) -> None:
    for _ in range(count):
        noop.apply_async((time.time() if urgent else BACKLOG,), priority=0 if urgent else 9)
        time.sleep(pause)


def start_storm() -> None:
    send_due_reminders.delay()
