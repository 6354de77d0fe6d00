"""Dramatiq as its guide has it: ``dramatiq scripts.benchmarks.peers.dramatiq_actors``.

A message is acknowledged when its actor has ended, so it survives a SIGKILL as it comes. The
fastest settings leave out all middleware and prefetch more. On Redis a priority orders only
what a process has prefetched (dramatiq's guide, "Message Priorities").
"""

from __future__ import annotations

import time

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from scripts.benchmarks import environment, lesson_mails
from scripts.benchmarks.runs import BACKLOG, BUSY_SECONDS, mark

broker = RedisBroker(  # type: ignore[no-untyped-call]
    url=environment.redis_url(), middleware=[] if environment.fastest() else None
)
dramatiq.set_broker(broker)


@dramatiq.actor
def noop(published_at: float) -> None:
    mark(published_at)


@dramatiq.actor
def ten_ms(published_at: float) -> None:
    mark(published_at)
    time.sleep(0.01)


@dramatiq.actor
def hang(published_at: float) -> None:
    mark(published_at)
    time.sleep(BUSY_SECONDS)


@dramatiq.actor(priority=10)
def backlog(published_at: float) -> None:
    mark(published_at)


@dramatiq.actor
def send_reminder(email_id: int) -> None:
    lesson_mails.send(email_id)


@dramatiq.actor
def send_due_reminders() -> None:
    for email_id in lesson_mails.planned():
        send_reminder.send(email_id)


def publish(task: str, count: int) -> None:
    actor = broker.get_actor(task)
    for _ in range(count):
        actor.send(time.time())


def publish_with_priority(urgent: bool, count: int, pause: float) -> None:
    actor = noop if urgent else backlog
    for _ in range(count):
        actor.send(time.time() if urgent else BACKLOG)
        time.sleep(pause)


def start_storm() -> None:
    send_due_reminders.send()
