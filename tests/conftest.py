"""What all tests share: markers by folder, and what becomes of a test without its service."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import hypothesis
import pytest

from app import outbox

pytest_plugins = (
    "tests.chaos_table",
    "tests.database",
    "tests.docker_objects",
    "tests.postgres_choice",
    "tests.process_logs",
    "tests.redis_choice",
)

# What a shell starts in its background is deaf to Ctrl-C, and so is all that this starts in turn.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine makes any example slow; pytest-timeout ends what hangs.
hypothesis.settings.register_profile("any-machine", deadline=None)
hypothesis.settings.load_profile("any-machine")

# The first folder below tests/ is a test's marker; these may open sockets.
MARKERS = ("unit", "property", "simulation", "integration", "e2e", "chaos")
WITH_SOCKETS = ("integration", "e2e", "chaos")
HANGS_AFTER_SECONDS = 240
"""For tests that start real processes, which a busy machine makes slow."""


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by its folder, and let those with real services open sockets.

    A test that a real service makes an integration test is one, whatever its folder.
    """
    tests = Path(__file__).parent
    for item in items:
        if not item.path.is_relative_to(tests):
            continue
        marker = item.path.relative_to(tests).parts[0]
        if item.get_closest_marker("integration") is not None:
            marker = "integration"
        elif marker in MARKERS:
            item.add_marker(marker)
        if marker == "property":
            item.add_marker(pytest.mark.timeout(HANGS_AFTER_SECONDS))
        if marker in WITH_SOCKETS:
            item.add_marker("enable_socket")
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(HANGS_AFTER_SECONDS))


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_published() -> None:
    """Keep what tests enqueue away from the Redis of whoever runs them.

    Importing ``app.tasks`` attaches that; a test that wants a broker attaches its own. All
    modules of tasks are imported, so that the calls of every test are checked alike.
    """
    import_module("app.tasks").celery_app.loader.import_default_modules()
    outbox.attach(None)


@pytest.fixture(scope="session")
def missing_service() -> Callable[[str], NoReturn]:
    """Call it where a service is not there: skips on a laptop, fails in CI."""

    def give_up(reason: str) -> NoReturn:
        if os.environ.get("CI") == "true":
            pytest.fail(f"missing in CI: {reason}")
        pytest.skip(reason)

    return give_up
