"""Where tests get a service from: a container, a server process of our own, or a URL."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import pytest

from scripts.live.images import image_from
from tests import docker_objects

if TYPE_CHECKING:  # importing it takes time that only integration tests have
    from testcontainers.core.container import DockerContainer

# Read when testcontainers is imported. Its reaper is an image of its own, which not every
# machine can pull: ``running`` removes the container itself.
os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
os.environ.setdefault("TESTCONTAINERS_HOST_OVERRIDE", "127.0.0.1")

NO_ANSWER = "Docker does not answer"
Container = TypeVar("Container", bound="DockerContainer")


@dataclass(frozen=True)
class ServiceChoice:
    """What the tests will talk to: ``kind`` is container, embedded, url or missing."""

    kind: str
    where: str  # the image, the server's path, the URL, or why there is none
    note: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.where}{self.note}"


@dataclass(frozen=True, eq=False)
class Service:
    """What a command-line option chooses, once a run."""

    flag: str
    image_variable: str
    public_image: str
    find_server: Callable[[], object]
    """Raises a ``RuntimeError`` in one line where this machine has none."""
    _key: pytest.StashKey[ServiceChoice] = field(default_factory=pytest.StashKey[ServiceChoice])

    def add_option(self, parser: pytest.Parser, what: str) -> None:
        """Offer the option; ``what`` says in a sentence what it chooses."""
        parser.addoption(
            self.flag,
            metavar="container|embedded|URL",
            help=f"{what} Default: a container where Docker answers and has the image, else"
            " embedded.",
        )

    def chosen(self, config: pytest.Config) -> ServiceChoice:
        """The choice, made when a test first needs it."""
        if self._key not in config.stash:
            config.stash[self._key] = choose(self, config.getoption(self.flag))
        return config.stash[self._key]


def choose(service: Service, option: str | None) -> ServiceChoice:
    """What the option says; without it a container where Docker has the image, else embedded."""
    if option not in (None, "container", "embedded"):
        return ServiceChoice("url", str(option))
    note = ""
    if option != "embedded":
        wanted = image_from(service.image_variable, service.public_image)
        why_not = why_no_container(wanted)
        if why_not is None:
            return ServiceChoice("container", wanted)
        if option == "container":
            return ServiceChoice("missing", f"({service.flag}=container, but {why_not})")
        note = f" (no container: {why_not})"
    try:
        return ServiceChoice("embedded", str(service.find_server()), note)
    except RuntimeError as error:
        return ServiceChoice("missing", f"({error})", note)


def why_no_container(image: str) -> str | None:
    """``None`` where Docker has the image, or could pull it just now."""
    from docker.errors import DockerException, ImageNotFound  # only integration tests pay for it

    try:
        with docker_objects.docker_client() as client:
            client.ping()
            try:
                client.images.get(image)
            except ImageNotFound:
                client.images.pull(image)
    except ImportError as error:
        return str(error)
    except DockerException as error:
        if "image" in str(error) or "registry" in str(error) or "pull" in str(error):
            return f"Docker answers, but has no image {image} and cannot pull it"
        return NO_ANSWER
    return None


@contextmanager
def running(make: Callable[[], Container], port: int) -> Generator[tuple[str, int]]:
    """Host and port of a container that is removed whatever happens, Ctrl-C included."""
    with docker_objects.labelled() as labels:
        container = make()
        container.with_kwargs(labels=labels)
        container.start()
        yield container.get_container_host_ip(), container.get_exposed_port(port)
