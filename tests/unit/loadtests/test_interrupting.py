"""A Ctrl-C while locust loads the scenarios ends it in one line."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
LOADING = """
import os, signal, sys
sys.modules["locust"] = sys        # locust is there, without the seconds that it takes
import loadtests
os.kill(os.getpid(), signal.SIGINT)
"""


def test_it_ends_in_one_line_while_the_scenarios_are_loaded() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", LOADING], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (130, "interrupted before the load began\n")


def test_elsewhere_ctrl_c_is_left_alone() -> None:
    elsewhere = LOADING.replace('sys.modules["locust"]', "_")
    ended = subprocess.run(
        [sys.executable, "-c", elsewhere], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "KeyboardInterrupt" in ended.stderr
