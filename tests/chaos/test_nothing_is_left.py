"""The fault tests clean up, however they end."""

import os
import signal
import subprocess
import sys
import time

import pytest

from scripts.faults.stage import stage
from scripts.live.compose import leftovers
from scripts.live.deployment import REPOSITORY

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("containers_can_be_had")]

BEGUN_SECONDS = 300


def test_ctrl_c_while_it_is_being_brought_up_leaves_nothing() -> None:
    command = [sys.executable, "-m", "scripts.prove_faults"]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        project = process.stdout.readline().split()[-1]
        deadline = time.monotonic() + BEGUN_SECONDS
        while not leftovers(project) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert leftovers(project)
        # As a terminal does it: everybody in the foreground is told.
        os.killpg(process.pid, signal.SIGINT)
        process.wait(timeout=180)
    assert process.returncode == 128 + signal.SIGINT
    assert leftovers(project) == []


def test_a_failure_leaves_nothing() -> None:
    with pytest.raises(ZeroDivisionError), stage(workers=1, beats=1) as made:
        project = made.compose.project
        assert leftovers(project)
        raise ZeroDivisionError
    assert leftovers(project) == []
