"""Which task modules must have run in a demo."""

import pytest

from app.tasks import celery_app
from scripts.demonstration import marketplace


def test_all_modules_of_the_marketplace_must_have_run() -> None:
    ours = {"analytics", "bookings", "cache", "cleanup", "email", "health", "notifications"}
    assert ours <= set(marketplace.modules())


def test_a_module_that_only_somebody_else_plans_need_not_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As scripts/new_task writes it without a beat entry."""
    monkeypatch.setitem(celery_app.tasks, "app.tasks.oddments.send", celery_app.tasks["celery.map"])
    assert "oddments" not in marketplace.modules()
