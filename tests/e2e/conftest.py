"""The compose files, brought up from the images that are here, and a browser."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from scripts.live.compose import Compose, NoComposeError, find_compose, leftovers
from scripts.live.prometheus import Prometheus
from tests.compose_file import REPOSITORY, services
from tests.container_images import image_is_here, name_of
from tests.e2e.browser import LOAD_SECONDS, find_chromium, launch

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
    assert leftovers(compose.project) == []


@pytest.fixture(scope="session")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hardened") / "secrets"
    subprocess.run(
        [REPOSITORY / "scripts/make_secrets"],
        env={**os.environ, "SECRETS_DIR": str(folder), "SMTP_URL": "smtp://mail:1025"},
        check=True,
        capture_output=True,
        timeout=60,
    )
    return folder


@pytest.fixture(scope="session")
def hardened(compose_is_here: None, secrets: Path) -> Iterator[Compose]:
    """The hardened file on top, with a mail catcher."""
    files = ["docker-compose.hardened.yml"]
    with Compose(files=files, environment={"SECRETS_DIR": str(secrets)}) as compose:
        compose.run("--profile", "mail-catcher", "up", "-d")
        compose.wait_until_healthy()
        yield compose
    assert leftovers(compose.project) == []


@pytest.fixture(scope="session")
def prometheus(deployment: Compose, missing_service: Callable[[str], NoReturn]) -> Prometheus:
    """The monitoring profile's, in the same deployment."""
    image = name_of(services()["prometheus"])
    if not image_is_here(image):
        missing_service(f"no image {image}: run scripts/build_images --monitoring")
    deployment.run("--profile", "monitoring", "up", "-d", "--no-deps", "prometheus")
    deployment.wait_until_healthy()
    return Prometheus(deployment.ports["PROMETHEUS_PORT"], rate_interval="1m")


@pytest.fixture(scope="session")
def chromium(missing_service: Callable[[str], NoReturn]) -> Iterator[Browser]:
    executable = find_chromium()
    if executable is None:
        missing_service("no Chromium on the PATH: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = launch(playwright, str(executable))
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A page of a browser that knows nothing of the other tests."""
    with chromium.new_context(viewport={"width": 1280, "height": 800}) as context:
        context.set_default_timeout(1000 * LOAD_SECONDS)
        yield context.new_page()
