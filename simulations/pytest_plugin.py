"""A deployment on virtual time as a pytest fixture.

In a ``conftest.py``::

    pytest_plugins = ("simulations.pytest_plugin",)

    @pytest.fixture
    def deployment_app():
        return celery_app

and in a test::

    @pytest.mark.deployment(start=datetime(2026, 11, 1, 4, tzinfo=UTC), workers=[WorkerGroup(2)])
    def test_storm(deployment):
        deployment.call_at(deployment.now, lambda: send_a_thousand())
        deployment.run_for(timedelta(hours=1))
        assert deployment.trace.counts["succeeded"] == 1000
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from celery import Celery

from simulations.engine import Deployment

START = datetime(2026, 7, 15, tzinfo=UTC)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "deployment(**arguments): what the fixture `deployment` gives to simulations.engine."
        "Deployment, such as start, seed and workers",
    )


@pytest.fixture
def deployment_app() -> Celery:
    """The app to be put on virtual time: to be replaced by a fixture of the same name."""
    raise pytest.UsageError(
        "the fixture `deployment` needs an app: write a fixture `deployment_app` that returns it"
    )


@pytest.fixture
def deployment(request: pytest.FixtureRequest, deployment_app: Celery) -> Iterator[Deployment]:
    """``deployment_app`` on virtual time, as the test's mark ``deployment`` has it."""
    marker = request.node.get_closest_marker("deployment")
    arguments = {"start": START, **(marker.kwargs if marker is not None else {})}
    with Deployment(deployment_app, **arguments) as running:
        yield running
