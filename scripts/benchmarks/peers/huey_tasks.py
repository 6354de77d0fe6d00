"""Huey as its guide has it: ``huey_consumer scripts.benchmarks.peers.huey_tasks.huey``.

On Redis it removes a task from its list before it runs it, and has no setting to do otherwise:
what a killed process was running is lost.
"""

from __future__ import annotations

import time

from huey import PriorityRedisHuey, RedisHuey

from scripts.benchmarks import environment, lesson_mails
from scripts.benchmarks.runs import BACKLOG, BUSY_SECONDS, mark

_class = PriorityRedisHuey if environment.with_priorities() else RedisHuey
huey = _class("bench", url=environment.redis_url(), results=False)


@huey.task()
def noop(published_at: float) -> None:
    mark(published_at)


@huey.task()
def ten_ms(published_at: float) -> None:
    mark(published_at)
    time.sleep(0.01)


@huey.task()
def hang(published_at: float) -> None:
    mark(published_at)
    time.sleep(BUSY_SECONDS)


@huey.task()
def send_reminder(email_id: int) -> None:
    lesson_mails.send(email_id)


@huey.task()
def send_due_reminders() -> None:
    for email_id in lesson_mails.planned():
        send_reminder(email_id)


def publish(task: str, count: int) -> None:
    called = {"noop": noop, "ten_ms": ten_ms, "hang": hang}[task]
    for _ in range(count):
        called(time.time())


def publish_with_priority(urgent: bool, count: int, pause: float) -> None:
    for _ in range(count):
        noop(time.time() if urgent else BACKLOG, priority=10 if urgent else 1)
        time.sleep(pause)


def start_storm() -> None:
    send_due_reminders()
