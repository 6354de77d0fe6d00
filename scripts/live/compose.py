"""The compose file, up under a name and on ports of its own; nothing of it is left behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.request import urlopen
from uuid import uuid4

from scripts.live.deployment import REPOSITORY
from scripts.live.ports import HOST, free_port
from scripts.live.processes import POLL

COMPOSE_FILE = "docker-compose.celery.yml"
PORTS = ("REDIS_PORT", "FLOWER_PORT", "MAIL_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT")
PROJECT_LABEL = "com.docker.compose.project"
COMMAND_SECONDS = 300.0
HEALTHY_SECONDS = 240.0
"""Within two minutes on an idle machine."""


class NoComposeError(RuntimeError):
    """Why compose cannot be used here, in one line."""


def find_compose() -> tuple[str, ...]:
    """``docker-compose`` or ``docker compose``, whichever is there. Raises ``NoComposeError``."""
    if not docker_answers():
        raise NoComposeError("docker does not answer")
    for command in (("docker-compose",), ("docker", "compose")):
        if shutil.which(command[0]) and _succeeds(*command, "version"):
            return command
    raise NoComposeError("neither docker-compose nor docker compose is installed")


def docker_answers() -> bool:
    """Whether a Docker daemon answers this user."""
    return shutil.which("docker") is not None and _succeeds("docker", "version")


def _succeeds(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=20).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


class Compose:
    """A context in which the project may be brought up; at its end all of it is removed.

    ``files`` come on top of the compose file; ``environment`` on top of this process's.
    Raises ``NoComposeError`` where compose is not there.
    """

    def __init__(
        self,
        *,
        name: str = "",
        files: Iterable[str | Path] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._command = find_compose()
        self.project = name or f"instainstru-{uuid4().hex[:8]}"
        self.ports = {variable: free_port() for variable in PORTS}
        self._files = [COMPOSE_FILE, *map(str, files)]
        self._environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("COMPOSE_")},
            **{variable: str(port) for variable, port in self.ports.items()},
            **(environment or {}),
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.down()

    def run(
        self, *arguments: str, stdin: str = "", timeout: float = COMMAND_SECONDS, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """``docker-compose <arguments>``, with what it prints.

        ``check``: AssertionError with what it printed where its exit status is not 0.
        """
        files = [word for file in self._files for word in ("-f", file)]
        done = subprocess.run(
            [*self._command, "-p", self.project, *files, *arguments],
            cwd=REPOSITORY,
            env=self._environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if check and done.returncode != 0:
            said = f"{done.stdout}\n{done.stderr}".strip()[-4000:]
            raise AssertionError(f"{' '.join(arguments)} ended with {done.returncode}:\n{said}")
        return done

    def up(self, *arguments: str) -> None:
        """``up -d <arguments>``."""
        self.run("up", "-d", *arguments)

    def python(self, service: str, program: str, *arguments: str) -> str:
        """What a Python program prints in a container of ``service``."""
        return self.run("exec", "-T", service, "python", "-", *arguments, stdin=program).stdout

    def down(self) -> None:
        """Remove its containers, networks and volumes, without the patience that tasks get."""
        self.run("kill", check=False)
        self.run("down", "--volumes", "--remove-orphans", "--timeout", "5")

    def containers(self, service: str = "") -> list[dict[str, Any]]:
        """``docker inspect`` of its containers, or of those of one service."""
        filters = [f"label={PROJECT_LABEL}={self.project}"]
        if service:
            filters.append(f"label=com.docker.compose.service={service}")
        ids = _docker("ps", "--all", "--quiet", *_filtered(filters)).split()
        found: list[dict[str, Any]] = json.loads(_docker("inspect", *ids)) if ids else []
        return found

    def wait_until_healthy(self, *, timeout: float = HEALTHY_SECONDS) -> float:
        """Until every container is healthy, or has done its one thing; the seconds it took.

        TimeoutError, with the state of those that are not, after ``timeout`` seconds.
        """
        began = time.monotonic()
        while True:
            states = {one["Name"].lstrip("/"): state_of(one) for one in self.containers()}
            wrong = {name: state for name, state in states.items() if state not in DONE}
            waited = time.monotonic() - began
            if states and not wrong:
                return waited
            if waited > timeout:
                raise TimeoutError(f"not healthy after {timeout} s: {wrong}\n{self.logs(*wrong)}")
            time.sleep(10 * POLL)

    def logs(self, *names: str) -> str:
        """The last lines of containers, by their names."""
        tails = []
        for name in names:
            done = subprocess.run(
                ["docker", "logs", "--tail", "30", name], capture_output=True, text=True
            )
            tails.append(f"--- {name}\n{done.stdout}{done.stderr}")
        return "\n".join(tails)

    def mails(self) -> list[dict[str, Any]]:
        """What the mail catcher has, the newest first (Mailpit's API)."""
        url = f"http://{HOST}:{self.ports['MAIL_PORT']}/api/v1/messages?limit=1000"
        with urlopen(url, timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)["messages"]
        return found


DONE = frozenset({"healthy", "done"})


def state_of(container: Mapping[str, Any]) -> str:
    """``healthy``, ``done`` (one that has no health check, and exited with 0), or what is wrong."""
    state = container["State"]
    if state["Status"] == "exited":
        one_shot = "Healthcheck" not in container["Config"]
        return "done" if one_shot and state["ExitCode"] == 0 else f"exited {state['ExitCode']}"
    health = state.get("Health", {}).get("Status")
    return str(health if state["Status"] == "running" and health else state["Status"])


def leftovers(project: str) -> list[str]:
    """Containers, networks and volumes of a project that are still there."""
    chosen = _filtered([f"label={PROJECT_LABEL}={project}"])
    return [
        *_docker("ps", "--all", "--format", "{{.Names}}", *chosen).split(),
        *_docker("network", "ls", "--format", "{{.Name}}", *chosen).split(),
        *_docker("volume", "ls", "--format", "{{.Name}}", *chosen).split(),
    ]


def _filtered(filters: Iterable[str]) -> list[str]:
    return [word for one in filters for word in ("--filter", one)]


def _docker(*arguments: str) -> str:
    return subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, check=True, timeout=60
    ).stdout
