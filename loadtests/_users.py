"""Users of a load test: people who act, and floods of bulk work."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import ClassVar

from locust import User, between, constant, task
from locust.exception import StopUser
from sqlalchemy.exc import SQLAlchemyError

from app.domain.errors import PermanentError
from loadtests import _hooks
from loadtests._load_run import REDIS_ERRORS, Acts
from loadtests._work import Call

ACT = "act"
"""Type of the figures that tell how long it took to publish, or to book, from outside."""

WAVE_SECONDS = 10.0
FLOODED_SECONDS = 5.0
"""So long of each wave floods flood, all at once; in the rest the least urgent is done, too."""
CHUNK = 20
"""Messages that a flood plans at once: the others of this process wait meanwhile."""


class Scenario(User):
    """Does something that causes work in some queues."""

    abstract = True
    queues: ClassVar[tuple[str, ...]]
    """In which it causes work: somebody must take from each."""
    sends: ClassVar[str]
    """What it sends, in words."""
    floods: ClassVar[bool] = False

    def on_start(self) -> None:
        """Do nothing where the test could not start: that was said already."""
        if _hooks.load_run() is None:
            raise StopUser

    def act(self, name: str, do: Callable[[Acts], object]) -> None:
        """Do it, and let locust count how long that took, or what went wrong.

        At the end of the test nothing is done any more.
        """
        run = _hooks.load_run()
        if run is None:
            return
        error: Exception | None = None
        began = time.perf_counter()
        try:
            with run.acting() as acts:
                do(acts)
        except (PermanentError, SQLAlchemyError, *REDIS_ERRORS) as caught:
            error = caught
        self.environment.events.request.fire(
            request_type=ACT,
            name=f"user: {name}",
            response_time=1000 * (time.perf_counter() - began),
            response_length=0,
            exception=error,
            context={},
        )


class Person(Scenario):
    """Acts, then thinks for a few seconds."""

    abstract = True
    wait_time = between(3, 5)


class Flood(Scenario):
    """Keeps as many messages waiting as ``--backlog`` says, wave by wave.

    So the queue is full however fast the Celery workers are, and never fuller than that.
    """

    abstract = True
    floods = True
    wait_time = constant(0.2)
    call: ClassVar[Call]

    def on_start(self) -> None:
        super().on_start()
        self._planned: set[str] = set()

    @task
    def top_up(self) -> None:
        run = _hooks.load_run()
        if run is None or (time.monotonic() - run.began) % WAVE_SECONDS >= FLOODED_SECONDS:
            return
        ledger = run.ledger
        self._planned = ledger.still_waiting(self._planned)
        options = self.environment.parsed_options
        missing = (options.backlog if options else CHUNK) - len(self._planned)
        for _ in range(0, missing, CHUNK):
            calls = [self.call] * min(missing, CHUNK)
            missing -= len(calls)
            self.act(f"flood {self.call.queue}", partial(self._plan, calls))
            time.sleep(0)  # a turn for the others

    def _plan(self, calls: list[Call], acts: Acts) -> None:
        self._planned.update(acts.plan(calls))
