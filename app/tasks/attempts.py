"""How an attempt ends: the table of all ends, and errors that would harm a worker.

Celery's pools expect an ``Exception`` from a task. With anything else they lose the slot,
restart the task without a bound, or stop. So ``BaseTask`` looks up each end here, records it
in the entry, and gives the pool an ``Exception`` that every pool can handle.
"""

import signal
import sys
import threading
from collections.abc import AsyncGenerator, Awaitable, Generator
from concurrent.futures import Future
from contextlib import suppress
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from billiard.common import terminate_handler_fired  # type: ignore[attr-defined]
from billiard.exceptions import Terminated, TimeLimitExceeded, WorkerLostError
from celery.exceptions import (
    Ignore,
    Reject,
    Retry,
    TaskPredicate,
    WorkerShutdown,
    WorkerTerminate,
)

from app.outbox.guard import AlreadyDoneError, storable
from app.tasks import context, stopping

LONGEST_TEXT = 2_000
"""Characters of an error's text that leave the process that ran the task."""


class Becomes(StrEnum):
    """The entry's state after an attempt."""

    UNCHANGED = "unchanged"
    COMPLETED = "completed"
    RESCHEDULED = "rescheduled"
    """Within the task's ``max_retries``, then failed."""
    REQUEUED = "requeued"
    """Within ``MAX_DELIVERIES``, then failed."""
    FAILED = "failed"


class How(StrEnum):
    """How an attempt ended."""

    RETURNED = "returned a value"
    SKIPPED = "was done already"
    UNFINISHED = "returned work that has not run"
    IGNORED = "raised Ignore"
    ASKED = "asked for a retry"
    TRANSIENT = "raised a transient error"
    TIMED_OUT = "raised a timeout of greenlets"
    REFUSED = "raised Reject(requeue=False)"
    GIVEN_BACK = "raised Reject(requeue=True)"
    RAISED = "raised another Exception"
    LEFT = "raised another BaseException"
    HARD_LIMIT = "reached the hard time limit"
    LOST = "lost its process"


ENDS = MappingProxyType(
    {
        How.RETURNED: Becomes.COMPLETED,
        How.SKIPPED: Becomes.UNCHANGED,
        How.UNFINISHED: Becomes.FAILED,
        How.IGNORED: Becomes.COMPLETED,
        How.ASKED: Becomes.RESCHEDULED,
        How.TRANSIENT: Becomes.RESCHEDULED,
        How.TIMED_OUT: Becomes.RESCHEDULED,
        How.REFUSED: Becomes.FAILED,
        How.GIVEN_BACK: Becomes.REQUEUED,
        # The soft time limit is one of these, unless the task lists it as transient.
        How.RAISED: Becomes.FAILED,
        How.LEFT: Becomes.FAILED,
        How.HARD_LIMIT: Becomes.FAILED,
        How.LOST: Becomes.REQUEUED,
    }
)
"""Every way in which an attempt ends. docs/guarantees.md has it with a test for each row.

What Celery reports follows from the exception that the attempt's end raises.
"""

# What a body raises to end its attempt without an error.
_NOT_AN_ERROR = {AlreadyDoneError: How.SKIPPED, Ignore: How.IGNORED, Retry: How.ASKED}

# Exceptions of a body that a worker's main process would take for its own.
_MISLEADING = (MemoryError, TaskPredicate, Terminated, TimeLimitExceeded, WorkerLostError)

_UNFINISHED = (Awaitable, Generator, AsyncGenerator, Future, map, filter)
_PLAIN = frozenset({type(None), bool, int, float, str, dict, list, tuple})


class AttemptError(Exception):
    """Stands for an end of a body that a pool cannot handle; its text names the error."""


class NotRecordedError(Ignore):
    """The entries' database does not answer: the attempt could not begin, or not be recorded.

    Its text is what the database reported. The worker gives the message back (``outage``).
    """


class RowLockedError(NotRecordedError):
    """Another transaction holds the entry's row for too long. The database answers.

    The worker leaves the entry to the relay, which publishes it again when its row is free.
    """


class UnfinishedWorkError(Exception):
    """A body returned work instead of doing it."""


def how_raised(error: BaseException, transient: tuple[type[Exception], ...]) -> How:
    """Return how an attempt ended whose body raised ``error``.

    ``transient`` are the task's transient errors. They may include ``Exception``, so the
    exceptions that are not errors come first.
    """
    kind = type(error)
    if issubclass(kind, Reject):
        return How.GIVEN_BACK if error.requeue else How.REFUSED  # type: ignore[attr-defined]
    for control, how in _NOT_AN_ERROR.items():
        if issubclass(kind, control):
            return how
    if issubclass(kind, transient):
        return How.TRANSIENT
    if issubclass(kind, _greenlet_timeouts()):
        return How.TIMED_OUT
    return How.RAISED if issubclass(kind, Exception) else How.LEFT


def unfinished(result: Any) -> UnfinishedWorkError | None:
    """Return the error of a body that returned a coroutine, a generator or the like.

    Such work is closed without having run. ``None`` for any other result.
    """
    if type(result) in _PLAIN or not isinstance(result, _UNFINISHED):
        return None
    if isinstance(result, Future) and result.done():
        return None
    close = getattr(result, "cancel" if isinstance(result, Future) else "close", None)
    if close is not None:
        with suppress(BaseException):
            close()
    return UnfinishedWorkError(
        f"the body returned a {type(result).__name__}, whose work has not run: "
        "await or iterate it in the body, for example with asyncio.run()"
    )


def text_of(error: BaseException) -> str:
    """Return the class and the text of ``error``, as a storable text of bounded length.

    Raises nothing, whatever ``__str__`` does. The text of an ``AttemptError`` already begins
    with the class of the error that it stands for.
    """
    name = type(error).__name__
    try:
        # Not a str's subclass, whose methods may be anything.
        shown = error.reason if isinstance(error, Reject) else error  # type: ignore[attr-defined]
        text = "" if shown is None else str.__str__(str(shown))[:LONGEST_TEXT]
    except BaseException as failure:
        return f"{name} (its text cannot be read: {type(failure).__name__})"
    text = storable(text)
    if isinstance(error, AttemptError):
        return text
    return f"{name}: {text}" if text else name


def presentable(error: BaseException) -> Exception:
    """Return ``error``, or an ``AttemptError`` where it would harm a worker, log or result.

    Harmful are an error that is not an ``Exception``, one that Celery takes for the end of a
    process, and a text that cannot be read or written, or is longer than ``LONGEST_TEXT``.
    """
    if isinstance(error, Exception) and not isinstance(error, _MISLEADING) and _reads_well(error):
        return error
    return AttemptError(text_of(error)).with_traceback(error.__traceback__)


def _reads_well(error: Exception) -> bool:
    try:
        text = str(error)
        return storable(text) == text and max(len(text), len(repr(error))) <= LONGEST_TEXT
    except BaseException:
        return False


def leave_to_the_process(error: BaseException, request: Any) -> None:
    """Raise ``error`` where it ends ``request``'s process or greenlet from outside; else return.

    A shutdown, a revocation and the pool's own time limit end a body by an exception too.
    Those must reach the pool, and leave the entry as it is.
    """
    kind = type(error)
    if terminate_handler_fired():
        # A prefork child after its SIGTERM. Cleaning up, the body may have raised another
        # error than the SystemExit that began it.
        raise error if issubclass(kind, SystemExit) else SystemExit(1) from error
    if not issubclass(kind, Exception) and _is_from_outside(error, kind, request):
        raise error


def _is_from_outside(error: BaseException, kind: type[BaseException], request: Any) -> bool:
    if getattr(kind, "ends_its_process", False):
        return True  # a simulated SIGKILL
    in_main_thread = threading.current_thread() is threading.main_thread()
    if issubclass(kind, WorkerShutdown | WorkerTerminate):
        # Raised by a signal handler, in the middle of a body of a solo or green pool.
        return in_main_thread and stopping.stop_is_requested()
    if issubclass(kind, KeyboardInterrupt):
        # A worker has a handler of its own for Ctrl-C. A test that drains the outbox has not.
        return in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    received = context.request_of(request.id)
    if issubclass(kind, _loaded("greenlet", "GreenletExit")):
        return bool(getattr(received, "is_being_stopped", False))
    if issubclass(kind, _loaded("gevent.timeout", "Timeout")):
        # The body's own timeout of the same length would end after the pool's.
        limit = getattr(received, "hard_limit", None)
        return limit is not None and getattr(error, "seconds", None) == limit
    return False


def _greenlet_timeouts() -> tuple[type[BaseException], ...]:
    return (*_loaded("gevent.timeout", "Timeout"), *_loaded("eventlet.timeout", "Timeout"))


def _loaded(module: str, name: str) -> tuple[type[BaseException], ...]:
    """The class, if this process has imported its module: else nothing can be one."""
    found = getattr(sys.modules.get(module), name, None)
    return () if found is None else (found,)
