"""RQ as its documentation has it: ``rq worker-pool urgent default``.

A job survives a SIGKILL where it has a ``Retry``: the registry of started jobs gives it back
once its worker's heartbeat is missed. ``Worker`` forks for each job; the fastest settings take
``SimpleWorker``, which does not. Queues that are named first are emptied first.
"""

from __future__ import annotations

import time
from typing import Any

import redis
from rq import Queue, Retry, SimpleWorker, Worker

from scripts.benchmarks import environment, lesson_mails
from scripts.benchmarks.runs import BACKLOG, BUSY_SECONDS, mark

_BATCH = 1000


class PreloadedWorker(Worker):
    """Has imported the jobs before it forks (RQ's documentation, "Performance Notes")."""


class PreloadedSimpleWorker(SimpleWorker):
    """The same, without a fork."""


def noop(published_at: float) -> None:
    mark(published_at)


def ten_ms(published_at: float) -> None:
    mark(published_at)
    time.sleep(0.01)


def hang(published_at: float) -> None:
    mark(published_at)
    time.sleep(BUSY_SECONDS)


def send_reminder(email_id: int) -> None:
    lesson_mails.send(email_id)


def send_due_reminders() -> None:
    _enqueue_many(send_reminder, [(email_id,) for email_id in lesson_mails.planned()])


def _options() -> dict[str, Any]:
    kept: dict[str, Any] = {} if environment.fastest() else {"retry": Retry(max=3)}
    return {"result_ttl": 0, **kept}


def _queue(name: str = "default") -> Queue:
    return Queue(name, connection=redis.Redis.from_url(environment.redis_url()))


def _enqueue_many(job: Any, calls: list[tuple[Any, ...]]) -> None:
    for start in range(0, len(calls), _BATCH):
        _queue().enqueue_many(
            [
                Queue.prepare_data(job, args=args, **_options())
                for args in calls[start : start + _BATCH]
            ]
        )


def publish(task: str, count: int) -> None:
    job = {"noop": noop, "ten_ms": ten_ms, "hang": hang}[task]
    _enqueue_many(job, [(time.time(),) for _ in range(count)])


def publish_with_priority(urgent: bool, count: int, pause: float) -> None:
    queue = _queue("urgent" if urgent else "default")
    for _ in range(count):
        queue.enqueue(noop, time.time() if urgent else BACKLOG, **_options())
        time.sleep(pause)


def start_storm() -> None:
    _queue().enqueue(send_due_reminders, job_timeout=600, **_options())
