"""A prefork child that dies while another's death is looked at: its task starts once."""

import subprocess
import sys
from pathlib import Path

import pytest

from app.tasks import celery_app
from app.tasks.dead_children import ReadsTheDead


def outcome(tmp_path: Path, celery: str, body: str) -> str:
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.integration.tasks.two_children",
            tmp_path / "f",
            celery,
            body,
        ],
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


@pytest.mark.parametrize("body", ["sleep", "return"])
def test_stock_celery_would_start_it_twice(tmp_path: Path, body: str) -> None:
    """When this fails, Celery has been mended, and ``app.tasks.dead_children`` can go."""
    assert outcome(tmp_path, "stock", body) == "1 pending"


@pytest.mark.parametrize(("body", "ended"), [("sleep", "failed"), ("return", "returned")])
def test_a_started_task_is_not_started_again(tmp_path: Path, body: str, ended: str) -> None:
    assert outcome(tmp_path, "ours", body) == f"0 {ended}"


def test_every_worker_reads_what_the_dead_reported() -> None:
    assert ReadsTheDead in celery_app.steps["worker"]
