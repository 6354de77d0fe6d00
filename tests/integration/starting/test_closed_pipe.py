"""Commands whose reader leaves before the end, as in ``... | head -3``."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PATIENCE = 60.0  # seconds


def with_closed_pipe(
    *command: str, environment: Mapping[str, str], stderr_too: bool = False
) -> tuple[int, str]:
    """The exit status and the errors of a command whose output nobody reads."""
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, *command],
            stdout=write,
            stderr=write if stderr_too else subprocess.PIPE,
            env={**os.environ, **environment},
            cwd=ROOT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    finally:
        os.close(write)
    return done.returncode, done.stderr or ""


@pytest.fixture
def nowhere(tmp_path: Path) -> dict[str, str]:
    """A Redis that is away, and a database that is empty."""
    return {
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "DATABASE_URL": f"sqlite:///{tmp_path}/empty.db",
        "LOG_DIR": "",
    }


@pytest.mark.parametrize("flags", [(), ("-u",)], ids=["buffered", "unbuffered"])
def test_the_health_command_keeps_its_verdict(nowhere: dict[str, str], flags: tuple[str]) -> None:
    command = (*flags, "-m", "app.tasks.health")
    assert with_closed_pipe(*command, environment=nowhere) == (1, "")
    assert with_closed_pipe(*command, environment=nowhere, stderr_too=True) == (1, "")


def test_an_admin_command_is_done_to_the_end(nowhere: dict[str, str]) -> None:
    command = ("-u", "-m", "app.admin")
    upgrade, pause, unknown = (
        ("database", "upgrade"),
        ("queues", "pause", "email", "cache"),
        ("queues", "pause", "emial"),
    )
    assert with_closed_pipe(*command, *upgrade, environment=nowhere) == (0, "")
    assert with_closed_pipe(*command, *pause, environment=nowhere) == (0, "")
    assert with_closed_pipe(*command, *pause, environment=nowhere) == (0, "")
    status, _ = with_closed_pipe(*command, *unknown, environment=nowhere, stderr_too=True)
    assert status == 2


@pytest.mark.parametrize(
    "command",
    [
        ("-u", "simulations/day.py", "--list-faults"),
        ("-u", "-m", "scripts.bench_drain", "--help"),
        ("-u", "-m", "scripts.prove_dst", "--help"),
        ("-u", "-m", "scripts.mutate", "--help"),
    ],
    ids=" ".join,
)
def test_no_command_ends_in_a_traceback(command: tuple[str], nowhere: dict[str, str]) -> None:
    assert with_closed_pipe(*command, environment=nowhere) == (0, "")
