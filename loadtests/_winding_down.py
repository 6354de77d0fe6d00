"""How a master brings its workers to their end, with all their figures.

By itself it tells them to quit and waits half a second for the last ones. They need longer:
what is under way is waited for, and what they made is deleted.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from locust.env import Environment
from locust.runners import MasterRunner, Runner, WorkerRunner

logger = logging.getLogger("loadtests")

WIND_DOWN, WOUND_DOWN, FAILED = "load-test-wind-down", "load-test-wound-down", "load-test-failed"
"""Messages between master and workers."""
CLEANING_SECONDS = 60.0
"""So long a worker may take beyond its patience, until the master goes on without it."""

_winding_down: set[str] = set()


def register(runner: Runner, *, failed: Callable[..., None]) -> None:
    """Let ``runner`` understand these messages; ``failed`` is called with a worker's error."""
    if isinstance(runner, WorkerRunner):
        runner.register_message(WIND_DOWN, _wind_down, concurrent=True)
    elif isinstance(runner, MasterRunner):
        runner.register_message(WOUND_DOWN, _wound_down)
        runner.register_message(FAILED, failed, concurrent=True)


def tell_master_of_failure(runner: WorkerRunner, error: str) -> None:
    """The test cannot start here."""
    runner.send_message(FAILED, {"error": error})


def wind_workers_down(environment: Environment, runner: MasterRunner) -> None:
    """Returns when each has come to its end, or is gone, or takes too long."""
    _winding_down.clear()
    _winding_down.update(client.id for client in runner.clients.all)
    runner.send_message(WIND_DOWN)
    patience = environment.parsed_options.patience  # type: ignore[union-attr]
    deadline = time.monotonic() + 2 * patience + CLEANING_SECONDS
    while _winding_down & set(runner.clients) and time.monotonic() < deadline:
        time.sleep(0.1)
    if left := _winding_down & set(runner.clients):
        logger.error("%d workers did not come to their end: their figures are not whole", len(left))


def _wind_down(environment: Environment, **_: Any) -> None:
    runner = environment.runner
    assert isinstance(runner, WorkerRunner)  # noqa: S101 - who else is told
    runner.stop()
    runner._send_stats()
    runner.send_message(WOUND_DOWN)


def _wound_down(msg: Any, **_: Any) -> None:
    _winding_down.discard(msg.node_id)
