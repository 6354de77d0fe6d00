"""The compose file, brought up from the images that are here."""

from collections.abc import Callable, Iterator
from typing import NoReturn

import pytest

from scripts.live.compose import Compose, NoComposeError, find_compose
from tests.compose_file import services
from tests.container_images import image_is_here, name_of

UP_TAKES_SECONDS = 900
"""A test that brings everything up may take so long, on a machine that is busy with others."""


@pytest.fixture(scope="session")
def compose_is_here(missing_service: Callable[[str], NoReturn]) -> None:
    """Skip, or fail in CI, where the compose file cannot be brought up without building."""
    try:
        find_compose()
    except NoComposeError as error:
        missing_service(f"compose: {error}")
    always = [service for service in services().values() if "profiles" not in service]
    missing = {name for service in always if not image_is_here(name := name_of(service))}
    if missing:
        missing_service(f"no image {', '.join(sorted(missing))}: run scripts/build_images")


@pytest.fixture(scope="session")
def deployment(compose_is_here: None) -> Iterator[Compose]:
    """Everything, with three workers and two beats, all healthy."""
    with Compose() as compose:
        compose.up("--scale", "celery_worker=3", "--scale", "celery_beat=2")
        compose.wait_until_healthy()
        yield compose
