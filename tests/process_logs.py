"""The logs of the processes that a test started, in its report if it fails."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping

import pytest

LOG_LINES = 100  # of each process

Logs = Callable[[], Mapping[str, str]]
_logs = pytest.StashKey[list[Logs]]()


@pytest.fixture
def show_logs(request: pytest.FixtureRequest) -> Callable[[Logs], None]:
    """Call it with something that returns {name: text}: shown if the test fails."""
    logs: list[Logs] = request.node.stash.setdefault(_logs, [])
    return logs.append


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach the logs of the processes that a failing test started."""
    report = yield
    if report.failed:
        for logs in item.stash.get(_logs, []):
            for name, text in logs().items():
                end = "\n".join(text.splitlines()[-LOG_LINES:])
                report.sections.append((f"end of {name}", end))
    return report
