"""What one process does for all of a load test: check, announce, and put back."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import Any

from locust.env import Environment

from app import outbox
from loadtests import _database, _report, _target
from loadtests._errors import LoadTestError
from loadtests._load_run import REDIS_ERRORS

logger = logging.getLogger("loadtests")

_to_undo = ExitStack()
_announced: str | None = None
"""The host of the test that may begin."""


def announce(environment: Environment) -> None:
    """Make sure that a test can begin, and say what it will send; once for each test.

    Raises ``LoadTestError``.
    """
    global _announced
    if _announced is not None and _announced == environment.host:
        return
    let_go()
    options: Any = environment.parsed_options
    options.through_services = _database.is_named()
    target = _target.connect(environment.host)
    _to_undo.callback(target.close)
    try:
        workers = target.check_workers(_queues(environment))
        if options.through_services:
            _database.check()
            outbox.attach(target.broker)
            try:
                _database.check_workers()
            finally:
                outbox.attach(None)
        told = _to_undo.enter_context(target.task_events())
    except REDIS_ERRORS as error:
        let_go()
        raise LoadTestError(f"--host: {target.name} does not answer: {error}") from error
    except (LoadTestError, KeyboardInterrupt):
        let_go()
        raise
    _report.announce(target, environment, workers=workers, told=told)
    _announced = environment.host


def let_go() -> None:
    """Undo at the end of a test what was done for it; again changes nothing."""
    global _announced
    _announced = None
    try:
        _to_undo.close()
    except REDIS_ERRORS as error:
        logger.error("Celery workers that were told to send events still do: %s", error)


def _queues(environment: Environment) -> set[str]:
    return {queue for each in environment.user_classes for queue in getattr(each, "queues", ())}
