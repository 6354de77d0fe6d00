"""One fault under load, from the first job to the last."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from sqlalchemy.exc import SQLAlchemyError

from app.outbox import BrokerUnavailableError
from app.routing import QUEUES
from app.tasks.broker import RedisBroker
from scripts.faults import figures, lessons
from scripts.faults.figures import Row
from scripts.faults.load import Load
from scripts.faults.stage import Stage
from scripts.faults.strikes import Fault
from scripts.live.jobs import celery_app

LOAD_IS_RUNNING = 0.1
"""A fault strikes when this part of its jobs is done."""
BEGIN_SECONDS = 120.0
DRAIN_SECONDS = 300.0
QUIET_SECONDS = 120.0
BROKER_SECONDS = 5.0
POLL_SECONDS = 0.5


def suffer(stage: Stage, fault: Fault, jobs: int, *, name: str = "") -> Row:
    """Plan ``jobs`` durable jobs, strike while they run, wait until all is done, and count.

    ``name`` is that of the jobs, which no two rounds of a deployment may share; the fault's
    where left out. Raises ``TimeoutError`` where the load does not begin, or the deployment
    is not healthy afterwards, and ``AssertionError`` where the fault struck nothing.
    """
    name = name or fault.name
    ticks_before = figures.doubled_ticks()
    with Load(name, jobs, seconds=fault.seconds) as load:
        wait_until(lambda: figures.count(name).done >= LOAD_IS_RUNNING * jobs, BEGIN_SECONDS)
        readers: set[str] = set()
        fault.begin(
            stage,
            lambda: readers.update(lessons.confirm_lessons(fault.lessons, prefix=name)),
        )
        healed = time.monotonic()
        load.wait_until_planned(timeout=DRAIN_SECONDS)
        drained = _seconds_until_drained(stage, name, readers, since=healed)
    stage.compose.wait_until_healthy()
    # What is still delivered now, late or twice, is to be counted too.
    with suppress(TimeoutError):
        wait_until(lambda: not _messages(), QUIET_SECONDS)
    counted, mails = figures.count(name), _mails(stage, name, readers)
    doubled_mails = mails.total() - len(mails)
    row = Row(
        fault.name,
        jobs=jobs + len(readers),
        lost=jobs - counted.done + len(readers - mails.keys()),
        doubled=counted.doubled + doubled_mails + figures.doubled_ticks() - ticks_before,
        redelivered=counted.redelivered,
        resent=counted.resent,
        drained_seconds=drained,
    )
    if fault.leaves is not None and getattr(row, fault.leaves) == 0:
        raise AssertionError(f"{fault.name} struck nothing: no job was {fault.leaves}")
    return row


def _seconds_until_drained(
    stage: Stage, name: str, readers: set[str], *, since: float
) -> float | None:
    def is_drained() -> bool:
        return figures.count(name).pending == 0 and readers <= _mails(stage, name, readers).keys()

    try:
        wait_until(is_drained, DRAIN_SECONDS)
    except TimeoutError:
        return None
    return time.monotonic() - since


def _mails(stage: Stage, name: str, readers: set[str]) -> Counter[str]:
    if not readers:
        return Counter()
    return lessons.arrived(stage.compose.ports["MAIL_PORT"], prefix=name)


def _messages() -> int:
    """How many wait in a queue or are held by a worker."""
    with _broker() as broker:
        depths = broker.depths([spec.name for spec in QUEUES])
        return sum(depth.waiting for depth in depths.values()) + len(broker.held())


def held() -> set[str]:
    """The ids of the messages that workers hold."""
    with _broker() as broker:
        return broker.held()


@contextmanager
def _broker() -> Iterator[RedisBroker]:
    broker = RedisBroker(celery_app, timeout=BROKER_SECONDS)
    try:
        yield broker
    finally:
        broker.close()


def wait_until(condition: Callable[[], bool], timeout: float) -> None:
    """TimeoutError after ``timeout`` seconds. What does not answer has not met it."""
    deadline = time.monotonic() + timeout
    while True:
        with suppress(SQLAlchemyError, BrokerUnavailableError):
            if condition():
                return
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout} s")
        time.sleep(POLL_SECONDS)
