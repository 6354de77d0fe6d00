"""What our image is, and what it holds."""

import re
import subprocess
from typing import Any

import pytest

from scripts.live.compose import docker_answers
from tests.compose_file import REPOSITORY
from tests.container_images import app_image, inspect

MEGABYTE = 1_000_000
# What a person would call a secret in a build: its name beside a value.
SECRET = re.compile(
    r"(?i)(password|passwd|secret|token|api_?key)\S*[=:]\s*\S|://[^/\s:]+:[^@\s]+@|PRIVATE KEY"
)
DEBIAN_WORDS = re.compile(r"GPG_KEY=\w+")


@pytest.fixture(scope="module")
def image(missing_service: Any) -> dict[str, Any]:
    if not docker_answers():
        missing_service("docker does not answer")
    found = inspect(app_image())
    if found is None:
        missing_service(f"no image {app_image()}: run scripts/build_images")
    return found


def run(*arguments: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """A command in a container of it, as the compose file runs it."""
    name = app_image()
    return subprocess.run(
        ["docker", "run", "--rm", "--init", "--read-only", "--tmpfs=/tmp", "--network=none",
         "--cap-drop=ALL", *options, name, *arguments],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_it_is_below_300_megabytes(image: dict[str, Any]) -> None:
    assert image["Size"] < 300 * MEGABYTE


def test_it_does_not_run_as_root(image: dict[str, Any]) -> None:
    said = run("python", "-c", "import os; print(os.getuid(), os.getgid())")
    assert said.stdout == "10001 10001\n", said.stderr


def test_it_says_what_it_is_and_what_it_was_made_from(image: dict[str, Any]) -> None:
    labels = image["Config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == "instainstru-tasks"
    assert labels["org.opencontainers.image.version"]
    assert re.fullmatch(r"[0-9a-f]{40}|unknown", labels["org.opencontainers.image.revision"])


def test_its_command_is_no_shell_that_keeps_signals_for_itself(image: dict[str, Any]) -> None:
    assert image["Config"]["Entrypoint"] in (None, [])
    assert image["Config"]["Cmd"][0] == "celery"


def test_it_works_with_a_root_file_system_that_nobody_can_write_to(image: dict[str, Any]) -> None:
    # The defaults: a SQLite file and a maildir in var/, a copy of the log in logs/.
    upgraded = run("python", "-m", "app.admin", "database", "upgrade")
    assert upgraded.returncode == 0, upgraded.stderr
    written = run("sh", "-c", "touch /srv/instainstru/app/x || touch /opt/venv/x || touch /etc/x")
    assert written.returncode != 0
    assert "Read-only file system" in written.stderr


def test_every_pool_and_the_driver_of_postgresql_are_there(image: dict[str, Any]) -> None:
    program = "import eventlet, flower, gevent, psycopg; print(psycopg.pq.__impl__)"
    said = run("python", "-c", program)
    assert said.stdout == "binary\n", said.stderr


def test_what_it_runs_is_what_the_lock_names(image: dict[str, Any]) -> None:
    lock = (REPOSITORY / "requirements-image.lock").read_text()
    locked = dict(re.findall(r"^([\w.-]+)==(\S+)", lock, re.MULTILINE))
    said = run(
        "python", "-c",
        "from importlib.metadata import distributions as d\n"
        "for one in d(path=[p for p in __import__('sys').path if 'venv' in p]):\n"
        "    print(one.name, one.version)",
    )  # fmt: skip
    installed = dict(line.split() for line in said.stdout.splitlines())
    assert {"celery", "psycopg"} <= installed.keys(), said.stderr
    plain = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in installed.items()}
    assert {name: version for name, version in plain.items() if locked.get(name) != version} == {}


def test_its_history_and_its_environment_hold_no_secret(image: dict[str, Any]) -> None:
    history = subprocess.run(
        ["docker", "history", "--no-trunc", "--format", "{{.CreatedBy}}", app_image()],
        capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip
    words = DEBIAN_WORDS.sub("", "\n".join([history, *image["Config"]["Env"]]))
    assert "COPY" in words
    assert SECRET.findall(words) == []


def test_nothing_of_a_developer_s_machine_gets_in(image: dict[str, Any]) -> None:
    listed = run("ls", "-A", "/srv/instainstru").stdout.split()
    assert sorted(listed) == ["app", "logs", "var"]
