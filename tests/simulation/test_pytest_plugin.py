"""The fixture ``deployment``, as another team uses it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

CONFTEST = """
import pytest
from celery import Celery

pytest_plugins = ("simulations.pytest_plugin",)

app = Celery("theirs", broker="redis://nowhere.invalid", set_as_current=False)


@app.task(name="work", shared=False, ignore_result=True)
def work():
    import time
    time.sleep(60)


@pytest.fixture
def deployment_app():
    return app
"""

TESTS = """
import os
from datetime import UTC, datetime, timedelta

import pytest
from simulations.engine import WorkerGroup


@pytest.mark.deployment(start=datetime(2026, 11, 1, tzinfo=UTC), workers=[WorkerGroup(1, 1)])
def test_storm(deployment, deployment_app):
    for _ in range(100):
        deployment.call_at(deployment.now, lambda: deployment_app.tasks["work"].delay())
    deployment.run_for(timedelta(minutes=50))
    assert deployment.trace.counts["succeeded"] == 50
    assert datetime.now(UTC) == datetime(2026, 11, 1, 0, 50, tzinfo=UTC)


def test_the_clock_is_the_real_one_again():
    written = os.stat(__file__).st_mtime
    assert 0 <= datetime.now(UTC).timestamp() - written < 600
"""


def run(folder: Path, conftest: str) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text(conftest)
    (folder / "test_theirs.py").write_text(TESTS)
    (folder / "pytest.ini").write_text(f"[pytest]\npythonpath = {ROOT}\n")
    plain = ["-p", "no:randomly", "-p", "no:celery", "-p", "no:cacheprovider", "--strict-markers"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plain, str(folder)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_test_of_theirs_runs_fifty_minutes_at_once(tmp_path: Path) -> None:
    ended = run(tmp_path, CONFTEST)
    assert "2 passed" in ended.stdout, ended.stdout


def test_without_an_app_it_says_what_to_write(tmp_path: Path) -> None:
    ended = run(tmp_path, CONFTEST.partition("@pytest.fixture")[0])
    assert "write a fixture `deployment_app` that returns it" in ended.stdout
    assert "1 passed, 1 error" in ended.stdout
