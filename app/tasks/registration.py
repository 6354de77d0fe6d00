"""Checks of a task at its registration. A refusal names the task, its file and what to do."""

import inspect
import math
import sys
from collections.abc import Mapping
from typing import Any

from celery import Celery

from app.tasks import command_line

SOFT_SHARE = 0.9
"""The soft time limit of a task that has only a hard one, as a share of it."""

LIMITS = ("time_limit", "soft_time_limit")
NOT_A_LIMIT = "is not a number of seconds above 0"


class RegistrationError(TypeError):
    """A task that could not run as it says."""


def check(task: Any, app: Celery) -> None:
    """Check the body and the time limits of a task class that is being bound to ``app``.

    A hard limit without a soft one lowers the soft limit in force to ``SOFT_SHARE`` of it.
    Raises ``RegistrationError``; a command would end in a traceback, so there the process
    prints the line and exits with status 2.
    """
    body = inspect.unwrap(task.__dict__.get("run") or task.run)
    body = getattr(body, "__func__", body)
    code = getattr(body, "__code__", None)
    where = f"{code.co_filename}:{code.co_firstlineno}" if code is not None else task.__module__
    why = _of_body(body) or _of_limits(task, app)
    if why is None:
        return
    line = f"task {task.name} ({where}): {why}"
    if command_line.ends_in_one_line():
        sys.stderr.write(f"{line}\n")
        raise SystemExit(2)
    raise RegistrationError(line)


def _of_body(body: Any) -> str | None:
    if inspect.iscoroutinefunction(body):
        return "a worker does not await an async def. Make it a def that calls asyncio.run()"
    if inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body):
        return "a worker does not iterate a generator. Use a loop, and return its result"
    return None


def _of_limits(task: Any, app: Celery) -> str | None:
    for name in LIMITS:
        limit = getattr(task, name)
        if limit is not None and not _is_limit(limit):
            return f"{name}={limit!r} {NOT_A_LIMIT}"
    # Celery has filled in what the task leaves out.
    hard, soft = task.time_limit, task.soft_time_limit
    if not hard or not soft or soft < hard:
        return None
    if soft == app.conf.task_soft_time_limit:
        # A prefork worker starts the clock of the hard limit when the soft one is over.
        task.soft_time_limit = hard * SOFT_SHARE
        return None
    return (
        f"its soft time limit ({soft:g} s) is not below its hard one ({hard:g} s). "
        "Lower soft_time_limit, or give a higher time_limit"
    )


def _is_limit(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value > 0


def check_limits(task: str, options: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` for a time limit among ``options`` that is not one."""
    for name in LIMITS:
        limit = options.get(name)
        if limit is not None and not _is_limit(limit):
            raise ValueError(f"{task}: {name}={limit!r} {NOT_A_LIMIT}")


def limits_in_force(
    message: tuple[float | None, float | None], task: Any, pool: Mapping[str, Any]
) -> tuple[tuple[float | None, float | None], float | None]:
    """Return the time limits, hard and soft, that a message is to have, and its hard limit.

    A message's limits come before its task's, and those before the worker's. Where the soft
    limit would not end before the hard one, it is lowered: see ``SOFT_SHARE``.
    """
    hard, soft = message
    hard_limit = hard or task.time_limit or pool.get("timeout")
    soft_limit = soft or task.soft_time_limit or pool.get("soft_timeout")
    if hard_limit and soft_limit and soft_limit >= hard_limit:
        return (hard_limit, hard_limit * SOFT_SHARE), hard_limit
    return message, hard_limit
