"""What tests start in Docker carries labels, by which all of it is found and removed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

if TYPE_CHECKING:  # importing it takes time that only integration tests have
    from docker import DockerClient

LABEL = "instainstru-tasks-tests"
"""Its value is the run's; all processes of a run have the same."""
PART_LABEL = "instainstru-tasks-tests.part"
RUN_VARIABLE = "INSTAINSTRU_TESTS_RUN"
DOCKER_TIMEOUT = 60  # seconds for one answer of Docker, a pull included

_begins_the_run = pytest.StashKey[bool]()


def pytest_configure(config: pytest.Config) -> None:
    """Name the run, for this process and those that it starts."""
    config.stash[_begins_the_run] = RUN_VARIABLE not in os.environ
    os.environ.setdefault(RUN_VARIABLE, str(uuid4()))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove what is still there: a Ctrl-C makes pytest-xdist kill its slow processes."""
    if not config.stash[_begins_the_run]:
        return
    run = os.environ.pop(RUN_VARIABLE)
    if (file := _file_of(run)).exists():  # else nobody has asked for Docker
        file.unlink()
        remove(LABEL, run)


def _file_of(run: str) -> Path:
    return Path(tempfile.gettempdir()) / f"{LABEL}-{run}"


@contextmanager
def docker_client() -> Generator[DockerClient]:
    import docker

    with closing(docker.from_env(timeout=DOCKER_TIMEOUT)) as client:
        yield client


@contextmanager
def labelled() -> Generator[dict[str, str]]:
    """Labels for containers, networks and volumes, which are gone at the end.

    By label, for an interrupted start leaves objects that no variable knows.
    """
    run, part = os.environ[RUN_VARIABLE], str(uuid4())
    _file_of(run).touch()
    try:
        yield {LABEL: run, PART_LABEL: part}
    finally:
        remove(PART_LABEL, part)


def remove(label: str, value: str) -> None:
    """Remove all that carries the label with this value."""
    from docker.errors import NotFound

    filters = {"label": f"{label}={value}"}
    with docker_client() as client:
        for container in client.containers.list(all=True, filters=filters):
            with suppress(NotFound):
                container.remove(force=True, v=True)
        for network in client.networks.list(filters=filters):
            network.remove()
        for volume in client.volumes.list(filters=filters):
            volume.remove(force=True)


def found(run: str) -> set[str]:
    """Names of the containers, networks and volumes that a run has made."""
    filters = {"label": f"{LABEL}={run}"}
    with docker_client() as client:
        return {
            *(str(one.name) for one in client.containers.list(all=True, filters=filters)),
            *(str(one.name) for one in client.networks.list(filters=filters)),
            *(str(one.name) for one in client.volumes.list(filters=filters)),
        }
