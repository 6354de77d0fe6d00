"""Jobs that end in every way: ``celery -A scripts.live.ending_jobs worker``.

``ENDINGS`` says of each what is to become of its entry, written anew from the promise in
docs/guarantees.md and not from the code.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from billiard.exceptions import WorkerLostError
from celery.exceptions import Ignore, Reject, Retry, SoftTimeLimitExceeded, WorkerShutdown

from app.domain.errors import TransientError
from app.models import OutboxState
from app.tasks import BaseTask
from scripts.live import jobs
from scripts.live.jobs import celery_app

__all__ = ["celery_app"]

POOLS = ("prefork", "threads", "solo", "gevent")
MAX_RETRIES = 1
MAX_DELIVERIES = 2
SETTINGS = {
    "MAX_DELIVERIES": str(MAX_DELIVERIES),
    "PUMP_INTERVAL_SECONDS": "0.2",
    "WATCHDOG_SECONDS": "20",
}
"""Of the workers and the beat: attempts follow each other at once."""

DONE, DEAD = OutboxState.DONE, OutboxState.DEAD


@dataclass(frozen=True)
class Ending:
    """A body, and what is to become of its entry on the pools that have such an end."""

    body: Callable[[BaseTask], Any]
    state: OutboxState
    starts: int = 1
    error: str = ""
    """The beginning of the entry's last error."""
    task: str = "ending.job"
    pools: tuple[str, ...] = POOLS


ENDINGS: dict[str, Ending] = {}


def ending(
    name: str, state: OutboxState, error: str = "", starts: int = 1, **options: Any
) -> Callable[[Callable[[BaseTask], Any]], Callable[[BaseTask], Any]]:
    def add(body: Callable[[BaseTask], Any]) -> Callable[[BaseTask], Any]:
        ENDINGS[name] = Ending(body, state, starts, error, **options)
        return body

    return add


def raising(error: Callable[[], BaseException]) -> Callable[[BaseTask], NoReturn]:
    def body(_: BaseTask) -> NoReturn:
        raise error()

    return body


class UnreadableError(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


class NotTextError(Exception):
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]

    __repr__ = __str__


class EvilTextError(Exception):
    def __str__(self) -> str:
        raise SystemExit(7)

    __repr__ = __str__


class UnpicklableError(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(one)
        self.held = lambda: two


class UnreadableTransientError(TransientError):
    __str__ = UnreadableError.__str__


class OddError(BaseException):
    """Of somebody's library."""


def greenlet_timeout() -> BaseException:
    from gevent import Timeout

    made: BaseException = Timeout(0.5)
    return made


def greenlet_exit() -> BaseException:
    from greenlet import GreenletExit

    made: BaseException = GreenletExit()
    return made


@ending("returns a value", DONE)
def _value(_: BaseTask) -> int:
    return 1


@ending("returns a coroutine", DEAD, "UnfinishedWorkError: the body returned a coroutine")
def _coroutine(_: BaseTask) -> Any:
    return asyncio.sleep(0)


@ending("returns a generator", DEAD, "UnfinishedWorkError: the body returned a generator")
def _generator(_: BaseTask) -> Iterator[int]:
    return (number for number in range(3))


@ending("returns an async generator", DEAD, "UnfinishedWorkError")
def _async_generator(_: BaseTask) -> Any:
    async def numbers() -> Any:
        yield 1

    return numbers()


@ending("returns another awaitable", DEAD, "UnfinishedWorkError: the body returned a Later")
def _awaitable(_: BaseTask) -> Any:
    class Later:
        def __await__(self) -> Any:
            yield

    return Later()


@ending("returns a map", DEAD, "UnfinishedWorkError: the body returned a map")
def _map(_: BaseTask) -> Any:
    return map(print, "abc")


@ending("asks for a retry", DEAD, "MaxRetriesExceededError", starts=1 + MAX_RETRIES)
def _retry(self: BaseTask) -> None:
    raise self.retry(countdown=0)


@ending("gevent.Timeout armed", DEAD, "Timeout: 0.2 seconds", 1 + MAX_RETRIES, pools=("gevent",))
def _armed(_: BaseTask) -> None:
    from gevent import Timeout

    with Timeout(0.2):
        time.sleep(60)


@ending("a soft time limit", DEAD, "SoftTimeLimitExceeded", task="ending.limited", pools=POOLS[:1])
def _soft_limit(_: BaseTask) -> None:
    time.sleep(60)


@ending(
    "a hard time limit",
    DEAD,
    "TimeLimitExceeded: ",
    task="ending.limited",
    pools=("prefork", "gevent"),
)
def _hard_limit(_: BaseTask) -> None:
    while True:
        try:
            time.sleep(60)
        except SoftTimeLimitExceeded:
            continue


@ending("a killed child", DEAD, "WorkerLostError: ", starts=MAX_DELIVERIES, pools=POOLS[:1])
def _killed_child(_: BaseTask) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


for _name, _state, _error, _starts, _raised in (
    ("a transient error", DEAD, "TransientError: x", 1 + MAX_RETRIES, lambda: TransientError("x")),
    ("an error", DEAD, "ValueError: never", 1, lambda: ValueError("never")),
    ("Ignore", DONE, "", 1, Ignore),
    ("Reject", DEAD, "Reject: rule", 1, lambda: Reject("rule", requeue=False)),
    ("Reject, requeued", DEAD, "Reject: rule", MAX_DELIVERIES, lambda: Reject("rule", True)),
    ("a Retry of its own", DEAD, "MaxRetriesExceededError", 1 + MAX_RETRIES, lambda: Retry("x")),
    ("sys.exit", DEAD, "SystemExit: 3", 1, lambda: SystemExit(3)),
    ("KeyboardInterrupt", DEAD, "KeyboardInterrupt", 1, KeyboardInterrupt),
    ("GeneratorExit", DEAD, "GeneratorExit", 1, GeneratorExit),
    ("CancelledError", DEAD, "CancelledError", 1, asyncio.CancelledError),
    ("GreenletExit", DEAD, "GreenletExit", 1, greenlet_exit),
    ("gevent.Timeout", DEAD, "Timeout: 0.5 seconds", 1 + MAX_RETRIES, greenlet_timeout),
    ("WorkerShutdown", DEAD, "WorkerShutdown", 1, WorkerShutdown),
    (
        "BaseExceptionGroup",
        DEAD,
        "BaseExceptionGroup: two",
        1,
        lambda: BaseExceptionGroup("two", [SystemExit(1), ValueError("x")]),
    ),
    ("another BaseException", DEAD, "OddError: odd", 1, lambda: OddError("odd")),
    ("MemoryError", DEAD, "MemoryError: full", 1, lambda: MemoryError("full")),
    ("WorkerLostError", DEAD, "WorkerLostError: me", 1, lambda: WorkerLostError("me")),
    ("an unreadable error", DEAD, "UnreadableError (its text", 1, UnreadableError),
    ("an error without text", DEAD, "NotTextError (its text", 1, NotTextError),
    ("an error whose text exits", DEAD, "EvilTextError (its text", 1, EvilTextError),
    ("a huge error", DEAD, "ValueError: aaa", 1, lambda: ValueError("a" * 10_000_000)),
    ("an unpicklable error", DEAD, "UnpicklableError: 1", 1, lambda: UnpicklableError("1", "2")),
    ("an unstorable error", DEAD, "ValueError: \\x00 \\ud800", 1, lambda: ValueError("\0 \ud800")),
    (
        "an unreadable transient error",
        DEAD,
        "UnreadableTransientError (its text",
        1 + MAX_RETRIES,
        UnreadableTransientError,
    ),
):
    ENDINGS[_name] = Ending(raising(_raised), _state, _starts, _error)


OPTIONS: dict[str, Any] = {
    "base": BaseTask,
    "bind": True,
    "max_retries": MAX_RETRIES,
    "retry_base": 0.1,
    "retry_cap": 0.1,
    # Celery's own wait before a message without an entry is sent again after a killed child.
    "default_retry_delay": 1,
}


def _end(self: BaseTask, end: str) -> Any:
    jobs.mark_start(str(self.request.id))
    return ENDINGS[end].body(self)


@celery_app.task(name="ending.job", **OPTIONS)
def job(self: BaseTask, end: str) -> Any:
    """Mark the start, and end as told."""
    return _end(self, end)


# Not shared: other Celery apps of this process have no such limits.
@celery_app.task(
    name="ending.limited", soft_time_limit=0.3, time_limit=0.6, shared=False, **OPTIONS
)
def limited(self: BaseTask, end: str) -> Any:
    """As ``job``, with time limits that are soon reached."""
    return _end(self, end)
