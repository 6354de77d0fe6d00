"""What a person meets who types a command at the wrong moment: one line, or silence."""

import os
import signal
import socket
from pathlib import Path

import pytest

from scripts.live.ports import HOST, free_port
from tests.integration.starting.shell import READY, Shell

BEGUN = r"app\.tasks\.interrupts"
"""Python says so, where it is asked to, as soon as it has imported that."""
STILL_IMPORTING = r"sqlalchemy\.orm"
NOBODY = f"redis://{HOST}:1/0"


@pytest.mark.parametrize(
    "line",
    [
        "celery -A app.tasks worker",
        "celery -A app.tasks beat",
        "python -m app.tasks.worker",
        "python -m app.tasks.beat",
    ],
)
@pytest.mark.parametrize("moment", [BEGUN, STILL_IMPORTING])
def test_ctrl_c_while_it_is_imported_ends_it_without_a_traceback(
    shell: Shell, line: str, moment: str
) -> None:
    process = shell.start(line, PYTHONPROFILEIMPORTTIME="1")
    process.wait_for_line(moment, timeout=READY)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(timeout=READY) == -signal.SIGINT
    assert "Traceback" not in process.log_text()


@pytest.mark.parametrize("command", ["worker", "beat"])
def test_ctrl_c_is_kept_while_one_command_becomes_the_other(shell: Shell, command: str) -> None:
    process = shell.start(f"python -m app.tasks.{command}", PYTHONPROFILEIMPORTTIME="1")
    process.wait_for_line(r"app\.tasks\.command$", timeout=READY)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(timeout=READY) == -signal.SIGINT
    assert "Traceback" not in process.log_text()


@pytest.mark.parametrize(
    "line",
    [
        "celery -A app.tasks call app.tasks.health.health_check --args='[]'",
        "celery -A app.tasks inspect ping",
        "celery -A app.tasks control revoke 1",
    ],
)
def test_a_question_without_redis_is_one_line_and_2(shell: Shell, line: str) -> None:
    asked = shell.run(line, REDIS_URL=NOBODY)
    assert asked.returncode == 2
    (said,) = asked.stderr.splitlines()
    assert said.startswith("REDIS_URL: Redis does not answer: ")
    assert "Connection refused" in said


@pytest.mark.parametrize("how", ["--port={port}", "FLOWER_PORT"])
def test_flower_on_a_port_that_is_in_use_is_one_line_and_2(shell: Shell, how: str) -> None:
    port = free_port()
    environment = {"FLOWER_PORT": str(port)} if how == "FLOWER_PORT" else {}
    option = how.format(port=port) if not environment else ""
    with socket.create_server((HOST, port)):
        ended = shell.run(f"celery -A app.tasks flower {option}", **environment)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stdout + ended.stderr
    assert ended.stderr.splitlines()[-1] == (
        f"flower cannot listen on {HOST} port {port}: Address already in use: "
        "choose another with --port"
    )


def test_the_demo_in_a_folder_that_cannot_be_made_is_one_line_and_2(shell: Shell) -> None:
    ended = shell.run("scripts/demo --folder /proc/x")
    assert (ended.returncode, ended.stdout) == (2, "")
    (said,) = ended.stderr.splitlines()
    assert said.startswith("demo: argument --folder: /proc/x cannot be made: ")
    assert not Path("/proc/x").exists()
