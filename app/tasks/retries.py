"""What ``self.retry()`` may be given, and the retry that is written into an entry."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from celery.exceptions import Retry

from app import clock
from app.outbox.enqueue import check_arguments

LONGEST_WAIT = timedelta(days=3650)
"""A retry planned for later than this is a mistake, not a plan."""


@dataclass(frozen=True)
class PlannedRetry:
    """What a retry is to write into the entry, once the body has let go of its transaction."""

    due_at: datetime
    error: str
    args: list[Any] | None = None
    kwargs: dict[str, Any] | None = None


class RetryFromEntry(Retry):
    """Tells Celery's tracer about a retry that it need not publish."""

    planned: PlannedRetry


def check_call(task: str, args: Any, kwargs: Any, exc: Any, eta: Any, countdown: Any) -> None:
    """Check what ``self.retry()`` of ``task`` was called with.

    Raises ``TypeError`` for arguments that are not a list and a dictionary of JSON, an
    ``exc`` that is not an exception, a ``countdown`` that is not a number, an ``eta`` that
    is not an aware datetime, and both of them. Raises ``ValueError`` for one that is not finite or
    lies more than ``LONGEST_WAIT`` ahead.
    """
    if exc is not None and not isinstance(exc, BaseException):
        raise TypeError(f"retry of {task}: exc is a {type(exc).__name__}, not an exception")
    if not isinstance(args, list | tuple | None) or not isinstance(kwargs, Mapping | None):
        raise TypeError(
            f"retry of {task}: args must be a list or tuple and kwargs a dictionary, not "
            f"{type(args).__name__} and {type(kwargs).__name__}"
        )
    check_arguments(task, args or (), kwargs or {})
    if eta is not None and countdown is not None:
        raise TypeError(f"retry of {task}: give countdown or eta, not both")
    if countdown is not None:
        if not isinstance(countdown, int | float):
            raise TypeError(
                f"retry of {task}: countdown is a {type(countdown).__name__}: give seconds"
            )
        if not math.isfinite(countdown) or countdown > LONGEST_WAIT.total_seconds():
            raise ValueError(
                f"retry of {task}: countdown={countdown} is not a number of seconds up to "
                f"{LONGEST_WAIT.days} days"
            )
    if eta is not None and not isinstance(eta, datetime):
        raise TypeError(f"retry of {task}: eta is a {type(eta).__name__}: give a datetime")
    if eta is not None and eta.utcoffset() is None:
        raise TypeError(
            f"retry of {task}: eta={eta.isoformat()} is naive: give an aware datetime, "
            "for example clock.utcnow() + timedelta(hours=1)"
        )


def due_at(task: str, eta: datetime | None, countdown: float | None) -> datetime:
    """Return when a retry is due: at ``eta``, else in ``countdown`` seconds, never in the past.

    Raises ``ValueError`` for an ``eta`` that lies more than ``LONGEST_WAIT`` ahead.
    """
    now = clock.utcnow()
    if eta is None:
        return now + timedelta(seconds=max(0.0, countdown or 0.0))
    if eta - now > LONGEST_WAIT:
        raise ValueError(
            f"retry of {task}: eta={eta.isoformat()} lies more than {LONGEST_WAIT.days} days ahead"
        )
    return max(now, eta)


def wait_of(retry: Retry) -> dict[str, Any]:
    """Return the ``eta`` or ``countdown`` of a ``Retry`` that a body made by itself."""
    if retry.when is None:
        return {}
    return {"eta" if isinstance(retry.when, datetime) else "countdown": retry.when}
