"""What becomes of a task whose workers are killed while it runs, with the benchmarks' settings."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from operator import attrgetter
from typing import NoReturn

import pytest
from dramatiq.brokers.redis import RedisBroker

from scripts.benchmarks.runs import POLL_SECONDS
from scripts.benchmarks.stage import Stage, stage
from scripts.benchmarks.systems import (
    DRAMATIQ,
    DURABLE,
    HUEY,
    OURS,
    RQ,
    STOCK,
    TASKIQ,
    System,
)
from scripts.live.redis_server import NoRedisServerError

pytestmark = pytest.mark.timeout(200)
BEGUN_SECONDS = 60.0
HOUR = 3600


@pytest.fixture
def on(missing_service: Callable[[str], NoReturn]) -> Iterator[Stage]:
    with ExitStack() as stack:
        try:
            opened = stack.enter_context(stage())
        except NoRedisServerError as error:
            missing_service(str(error))
        opened.clear()
        yield opened


def kill_while_busy(on: Stage, system: System) -> float:
    """When the task was published that was running as all of its workers were killed."""
    with on.working(system, warm=False) as workers:
        on.wait_for_runs(1, workers, timeout=BEGUN_SECONDS)
        for worker in workers:
            worker.kill()
    [published_at] = begun(on)
    return published_at


def wait_until_it_begins_again(on: Stage, system: System, published_at: float) -> None:
    with on.working(system, warm=False) as workers:
        until = time.monotonic() + BEGUN_SECONDS
        # Not for all runs: what a process has prefetched waits until its busy task has ended.
        while begun(on).count(published_at) < 2:
            if time.monotonic() > until:
                words = "\n".join(worker.log_text()[-2000:] for worker in workers)
                pytest.fail(f"it has not begun again in {BEGUN_SECONDS:g} s\n{words}")
            time.sleep(POLL_SECONDS)


def begun(on: Stage) -> list[float]:
    return [run.published_at for run in on.runs.all()]


def age_scores(on: Stage, key: str, age: float) -> None:
    for member, score in on.redis.zscan_iter(key):
        on.redis.zadd(key, {member: score - age})


def age_celery(on: Stage) -> None:
    age_scores(on, "unacked_index", HOUR)


def age_dramatiq(on: Stage) -> None:
    age_scores(on, "dramatiq:__heartbeats__", HOUR * 1000)
    # One command in a thousand, of any process, looks for the dead; this one does for certain.
    broker = RedisBroker(  # type: ignore[no-untyped-call]
        client=on.redis, middleware=[], maintenance_chance=1_000_000
    )
    broker.do_qsize("default")


def age_rq(on: Stage) -> None:
    age_scores(on, "rq:wip:default", HOUR)


def age_taskiq(on: Stage) -> None:
    stream = group = "taskiq"
    for held in on.redis.xpending_range(stream, group, "-", "+", 10):
        of_consumer, message = str(held["consumer"]), held["message_id"]
        on.redis.xclaim(stream, group, of_consumer, 0, [message], idle=HOUR * 1000, justid=True)


AGE = {
    OURS.module: age_celery,
    STOCK.module: age_celery,
    DRAMATIQ.module: age_dramatiq,
    RQ.module: age_rq,
    TASKIQ.module: age_taskiq,
}
"""Makes an hour pass in what a system notes in Redis of its workers and what they hold."""


@pytest.mark.parametrize("system", DURABLE, ids=attrgetter("name"))
def test_a_task_of_a_durable_system_begins_again_after_its_workers_were_killed(
    on: Stage, system: System
) -> None:
    """Each is seen to run again, from what Redis has. Timeouts of half a minute to ten minutes
    are neither waited for nor shortened: Redis is made older, and the settings stay those of
    the benchmarks.
    """
    on.publish(system, "publish", system.hang, 1)
    published_at = kill_while_busy(on, system)
    AGE[system.module](on)
    # Taskiq looks for what the dead held only after it has received something new.
    on.publish(system, "publish", system.noop, 1)
    wait_until_it_begins_again(on, system, published_at)


def test_huey_has_nothing_left_of_a_task_whose_workers_were_killed(on: Stage) -> None:
    """Nothing is in Redis that could be waited for, and new workers run only what is new."""
    on.publish(HUEY, "publish", HUEY.hang, 1)
    assert on.redis.keys() == ["huey.redis.bench"]
    published_at = kill_while_busy(on, HUEY)
    assert on.redis.keys() == []
    on.publish(HUEY, "publish", HUEY.noop, 1)
    with on.working(HUEY, warm=False) as workers:
        on.wait_for_runs(2, workers, timeout=BEGUN_SECONDS)
    assert begun(on).count(published_at) == 1
