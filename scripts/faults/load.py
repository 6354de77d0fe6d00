"""Planning jobs while things break, as the marketplace would: no answer, so once more."""

from __future__ import annotations

import time
from datetime import timedelta
from threading import Event, Thread
from types import TracebackType
from typing import Self

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from app import clock, db, outbox

BATCH = 100
LONG_EVERY = 50
"""One job in so many takes long, so that faults find some in the middle."""
LONG_SECONDS = 0.5
AGAIN_SECONDS = 0.5
SHORT, LONG = "scripts.live.jobs.effect", "scripts.live.jobs.work"


def plan_later(name: str, count: int, *, after: timedelta) -> None:
    """Plan ``count`` short jobs that are due ``after`` now: beat alone publishes those."""
    with db.transaction() as session:
        at = clock.utcnow() + after
        for number in range(count):
            job = f"{name} {number}"
            outbox.enqueue(session, SHORT, job, key=job, at=at)


class Load:
    """A context in which ``count`` jobs are planned from a thread, evenly over ``seconds``.

    Each has a key, its name: where a commit's answer is lost, it is planned again and is
    there once.
    """

    def __init__(
        self,
        name: str,
        count: int,
        *,
        seconds: float,
        long_every: int = LONG_EVERY,
        long_seconds: float = LONG_SECONDS,
    ) -> None:
        self.name = name
        self.count = count
        self.planned = 0
        self._seconds = seconds
        self._long_every = long_every
        self._long_seconds = long_seconds
        self._given_up = Event()
        self._thread = Thread(target=self._run, name=f"load {name}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._given_up.set()
        self._thread.join()

    def wait_until_planned(self, *, timeout: float) -> None:
        """Until all are committed. TimeoutError after ``timeout`` seconds."""
        self._thread.join(timeout)
        if self._thread.is_alive() or self.planned < self.count:
            raise TimeoutError(f"{self.planned} of {self.count} jobs planned after {timeout} s")

    def _run(self) -> None:
        began = time.monotonic()
        for first in range(0, self.count, BATCH):
            due = began + self._seconds * first / self.count
            self._given_up.wait(max(0.0, due - time.monotonic()))
            last = min(first + BATCH, self.count)
            while not self._given_up.is_set() and not self._committed(first, last):
                self._given_up.wait(AGAIN_SECONDS)
            if self._given_up.is_set():
                return
            self.planned = last

    def _committed(self, first: int, last: int) -> bool:
        try:
            with db.transaction() as session:
                for number in range(first, last):
                    job = f"{self.name} {number}"
                    if number % self._long_every == 0:
                        outbox.enqueue(session, LONG, job, self._long_seconds, key=job)
                    else:
                        outbox.enqueue(session, SHORT, job, key=job)
        except (DBAPIError, SQLAlchemyError):
            return False
        return True
