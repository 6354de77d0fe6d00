from datetime import UTC, datetime, timedelta
from threading import Timer
from types import SimpleNamespace
from typing import Any

import pytest

from loadtests import _leftovers
from loadtests._ledger import Ledger
from loadtests._load_run import LoadRun

TRACE = "0123456789abcdef0123456789abcdef"
PUBLISHED = datetime(2026, 7, 1, 12, tzinfo=UTC)
A_MOMENT = 0.15
"""Seconds: workers send what they tell together, a tenth of a second late."""


@pytest.fixture
def errors() -> list[str | None]:
    return []


@pytest.fixture
def run(errors: list[str | None]) -> LoadRun:
    """One that has published a message, and has heard nothing of it."""
    made: Any = LoadRun.__new__(LoadRun)
    made.ledger = Ledger(TRACE, lambda _measure, _queue, _seconds, error: errors.append(error))
    made.ledger.expect(["a"], "email", published_at=PUBLISHED)
    made._acting = 0
    made._marketplace = None
    made._lateness = SimpleNamespace(seconds=0.0, stop=lambda: None)
    made._listener = SimpleNamespace(gaps=0, stop=lambda: None)
    broker = SimpleNamespace(held=set, now=lambda: PUBLISHED + timedelta(seconds=1))
    made._target = SimpleNamespace(app=None, broker=broker, close=lambda: None)
    return made  # type: ignore[no-any-return]


def test_what_a_worker_tells_a_moment_after_the_rest_was_taken_back_is_not_lost(
    run: LoadRun, errors: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def tell() -> None:
        began = PUBLISHED.timestamp() + 0.5
        run.ledger.hear({"type": "task-started", "uuid": "a", "timestamp": began})
        run.ledger.hear(
            {"type": "task-succeeded", "uuid": "a", "timestamp": began, "runtime": 0.001}
        )

    def taken_by_a_worker_meanwhile(*_: object) -> list[Any]:
        Timer(A_MOMENT, tell).start()
        return []

    monkeypatch.setattr(_leftovers, "remove", taken_by_a_worker_meanwhile)
    run.finish(patience=4 * A_MOMENT)
    assert errors == [None, None]


def test_what_no_worker_tells_of_at_all_is_lost(
    run: LoadRun, errors: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_leftovers, "remove", lambda *_: [])
    run.finish(patience=0.01)
    assert errors == ["taken, but no worker told of a start"]
