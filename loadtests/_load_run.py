"""One process's part of a load test, from its first message to the last one it cleans up."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from app import entropy, outbox, trace
from app.outbox import BrokerUnavailableError
from app.outbox.broker import Broker
from loadtests import _leftovers, _work
from loadtests._errors import LoadTestError
from loadtests._events import Listener
from loadtests._lateness import Lateness
from loadtests._ledger import Ledger, Record
from loadtests._marketplace import Marketplace
from loadtests._publishing import NotingBroker, publish
from loadtests._target import Target
from loadtests._work import Call

logger = logging.getLogger("loadtests")

POLL_SECONDS = 0.1
CLOCKS_DIFFER_SECONDS = 0.05
"""A wait that is shorter than minus this is told: the clocks are not those of one machine."""

LATE_SECONDS = 0.5
"""Beyond that it is told that this process was late: it has too much to do."""

REDIS_ERRORS = (BrokerUnavailableError, OperationalError, RedisError, OSError)
"""What is raised where Redis does not answer."""


class Acts(Protocol):
    """What users do, by whatever way."""

    def book(self) -> None: ...

    def cancel(self) -> None: ...

    def forget_password(self) -> None: ...

    def plan(self, calls: Sequence[Call]) -> list[str]:
        """Plan runs of tasks; their messages' ids."""
        ...


class MessagesAlone:
    """Acts without a database: the messages that each would cause, and nothing else."""

    def __init__(self, broker: Broker, *, trace_id: str) -> None:
        self._broker = broker
        self._trace_id = trace_id

    def book(self) -> None:
        self.plan(_work.BOOKING)

    def cancel(self) -> None:
        self.plan(_work.CANCELLATION)

    def forget_password(self) -> None:
        self.plan(_work.PASSWORD_RESET)

    def plan(self, calls: Sequence[Call]) -> list[str]:
        return publish(self._broker, calls, trace_id=self._trace_id)


class LoadRun:
    """Publishes, hears what becomes of it, and takes away what is left."""

    def __init__(self, target: Target, record: Record, *, through_services: bool) -> None:
        """Listens, and has its people moved in, when it is made. Raises ``LoadTestError``."""
        self.ledger = Ledger(trace.new(), record)
        self._target = target
        self._listener = Listener(target.app, self.ledger.hear)
        self._marketplace: Marketplace | None = None
        self._lateness = Lateness()
        self._acting = 0
        broker = NotingBroker(target.broker, self.ledger)
        self._listener.start()
        try:
            if through_services:
                outbox.attach(broker)
                self._marketplace = Marketplace(target.settings, self.ledger, rng=entropy.rng())
        except SQLAlchemyError as error:
            self._close()
            raise LoadTestError(f"DATABASE_URL: {error}") from error
        self.began = time.monotonic()
        """When the first user may act (monotonic seconds)."""
        self.acts: Acts = self._marketplace or MessagesAlone(broker, trace_id=self.ledger.trace_id)

    @contextmanager
    def acting(self) -> Iterator[Acts]:
        """What a user does inside is waited for at the end."""
        self._acting += 1
        try:
            yield self.acts
        finally:
            self._acting -= 1

    def finish(self, *, patience: float) -> None:
        """Let what is under way come to its end, ``patience`` seconds long; then clean up.

        No user may begin anything any more. What is left waiting then is recorded with its
        age. Errors are logged: whatever can be cleaned is.
        """
        try:
            self._wait(lambda: not self._acting, patience)
            self._lateness.stop()
            self._wait(self._all_told, patience)
            self._take_back()
            if self._marketplace is not None:
                self._marketplace.withdraw()
            # Workers send what they tell together, a moment later.
            self._wait(self._all_told, patience)
            if lost := self.ledger.lose_sight("taken, but no worker told of a start"):
                logger.error(
                    "not told of by any worker: %s; the connection to Redis was lost %d times",
                    _listed(lost),
                    self._listener.gaps,
                )
            if running := self.ledger.running:
                logger.warning("still running at the end, and not measured: %s", _listed(running))
        except (*REDIS_ERRORS, SQLAlchemyError) as error:
            logger.error("the end of this load test was not measured: %s", error)
            self.ledger.lose_sight("the end was not measured")
        finally:
            self._close()
        if self.ledger.most_negative_wait < -CLOCKS_DIFFER_SECONDS:
            logger.warning(
                "a worker's clock is %.2f s or more behind Redis's: waits are as much too short",
                -self.ledger.most_negative_wait,
            )
        if self._lateness.seconds > LATE_SECONDS:
            logger.warning(
                "this process was up to %.1f s late, so waits may be as much too long: use more "
                "processes (--processes), another machine, or fewer users",
                self._lateness.seconds,
            )

    def _all_told(self) -> bool:
        return not self.ledger.waiting and not self.ledger.running

    def _take_back(self) -> None:
        left = _leftovers.remove(self._target.app, self.ledger.trace_id)
        # What a worker has taken, and not begun, waits as well.
        held = self.ledger.published_of(self._target.broker.held())
        if left or held:
            logger.info(
                "never started, and counted with their age: %d messages, of which %d were taken "
                "out of their queues",
                len(left) + len(held),
                len(left),
            )
        self.ledger.never_started([*left, *held], now=self._target.broker.now())

    def _wait(self, condition: Callable[[], bool], patience: float) -> None:
        deadline = time.monotonic() + patience
        while not condition() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)

    def _close(self) -> None:
        outbox.attach(None)
        self._lateness.stop()
        self._listener.stop()
        try:
            if self._marketplace is not None:
                self._marketplace.move_out()
        except (LoadTestError, SQLAlchemyError) as error:
            logger.error(
                "not all was deleted of what belongs to *@%s.loadtest.invalid: %s",
                self.ledger.trace_id,
                error,
            )
        self._target.close()


def _listed(numbers: dict[str, int]) -> str:
    return ", ".join(f"{number:,} of {queue}" for queue, number in sorted(numbers.items()))
