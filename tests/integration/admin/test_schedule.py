"""The schedule's command as a process of its own."""

import subprocess
import sys

import pytest

from scripts.live.deployment import REPOSITORY


@pytest.mark.timeout(180)
def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    # A day is more than a pipe holds, so the writer is still writing when head goes.
    command = f"{sys.executable} -m app.admin schedule --json | head -n 1"
    answer = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "[\n", "")
