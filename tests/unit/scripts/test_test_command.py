"""What scripts/test says at its end, of what a stand-in for tox printed."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.compose_file import REPOSITORY

PASSED = "  lint: OK (3.30=setup[0.90]+cmd[2.40] seconds)"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with scripts/test, and an environment in which nothing is installed."""
    (tmp_path / "scripts").mkdir()
    for name in ("test", "virtualenv.sh"):
        shutil.copy(REPOSITORY / "scripts" / name, tmp_path / "scripts")
    for name in ("python", "pip"):
        command(tmp_path / ".venv/bin" / name, "exit 0")
    return tmp_path


def command(path: Path, body: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def scripts_test(checkout: Path, *lines: str, status: int) -> subprocess.CompletedProcess[str]:
    (checkout / "tox.out").write_text("".join(f"{line}\n" for line in lines))
    command(checkout / ".venv/bin/tox", f"cat tox.out\nexit {status}")
    return subprocess.run(
        [checkout / "scripts/test"], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("status", [0, 1])
def test_the_exit_status_is_toxs(checkout: Path, status: int) -> None:
    done = scripts_test(checkout, PASSED, status=status)
    assert done.returncode == status
    assert done.stdout.splitlines()[-1] == "Not run: nothing was skipped."


def test_what_was_not_run_is_named_at_the_end(checkout: Path) -> None:
    done = scripts_test(
        checkout,
        "py314: skipped because could not find python interpreter with spec(s): py314",
        "SKIPPED [9] tests/query_plans.py:18: the plans are those of SQLite",
        "vulnerabilities: not run: no vulnerability service answers here",
        PASSED,
        status=0,
    )
    assert done.stdout.splitlines()[-4:] == [
        "Not run:",
        "  py314: no py314 on this machine",
        "  tests/query_plans.py:18: the plans are those of SQLite",
        "  vulnerabilities: not run: no vulnerability service answers here",
    ]


def test_what_failed_is_named_at_the_end(checkout: Path) -> None:
    done = scripts_test(
        checkout,
        "FAILED tests/unit/test_a.py::test_b[c] - AssertionError: d",
        PASSED,
        "  py313: FAIL code 1 (2.00=setup[0.90]+cmd[1.10] seconds)",
        status=1,
    )
    assert done.stdout.splitlines()[-3:] == [
        "Failed:",
        "  tests/unit/test_a.py::test_b[c]",
        "  tox -e py313",
    ]


def test_a_command_line_that_tox_refuses_is_2_and_no_run(checkout: Path) -> None:
    refusal = "ROOT: HandledError| provided environments not found in configuration file:"
    done = scripts_test(checkout, refusal, "nosuch", status=254)
    assert done.returncode == 2
    assert done.stdout.splitlines()[-1] == "nosuch"


def test_after_ctrl_c_it_says_how_far_it_came_and_ends_with_130(checkout: Path) -> None:
    waiting = checkout / "waiting"
    command(
        checkout / ".venv/bin/tox",
        f"trap 'echo \"SKIPPED [1] tests/a.py:1: no b\"; exit 254' INT\ntouch {waiting}\n"
        "for each in $(seq 300); do sleep 0.1; done",
    )
    process = subprocess.Popen(
        [checkout / "scripts/test"], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 30
    while not waiting.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    # To the whole group, as a terminal does.
    subprocess.run(["kill", "-s", "INT", "--", f"-{process.pid}"], check=True)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGINT
    assert said.splitlines()[-2:] == ["Not run:", "  tests/a.py:1: no b"]
