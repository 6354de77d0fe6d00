"""Taskiq as its guide has it: ``taskiq worker scripts.benchmarks.peers.taskiq_tasks:broker``.

``RedisStreamBroker`` acknowledges, and so survives a SIGKILL; ``ListQueueBroker`` is the
fastest. Neither knows priorities.
"""

from __future__ import annotations

import asyncio
import time

from taskiq import AsyncBroker
from taskiq_redis import ListQueueBroker, RedisStreamBroker

from scripts.benchmarks import environment, lesson_mails
from scripts.benchmarks.runs import BUSY_SECONDS, mark

broker: AsyncBroker = (
    ListQueueBroker(url=environment.redis_url())
    if environment.fastest()
    # From the first message, not from those that come after the start.
    else RedisStreamBroker(url=environment.redis_url(), consumer_id="0")
)


@broker.task(task_name="noop")
async def noop(published_at: float) -> None:
    mark(published_at)


@broker.task(task_name="ten_ms")
async def ten_ms(published_at: float) -> None:
    mark(published_at)
    await asyncio.sleep(0.01)


@broker.task(task_name="hang")
async def hang(published_at: float) -> None:
    mark(published_at)
    await asyncio.sleep(BUSY_SECONDS)


# What talks to a database and a mail server by blocking libraries is a plain function, which
# the worker runs in its thread.
@broker.task(task_name="send_reminder")
def send_reminder(email_id: int) -> None:
    lesson_mails.send(email_id)


@broker.task(task_name="send_due_reminders")
async def send_due_reminders() -> None:
    for email_id in await asyncio.to_thread(lesson_mails.planned):
        await send_reminder.kiq(email_id)


def publish(task: str, count: int) -> None:
    called = {"noop": noop, "ten_ms": ten_ms, "hang": hang}[task]

    async def send() -> None:
        await broker.startup()
        for _ in range(count):
            await called.kiq(time.time())
        await broker.shutdown()

    asyncio.run(send())


def start_storm() -> None:
    async def send() -> None:
        await broker.startup()
        await send_due_reminders.kiq()
        await broker.shutdown()

    asyncio.run(send())
