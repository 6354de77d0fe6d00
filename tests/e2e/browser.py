"""Chromium for the tests, and what they say about a page."""

import os
import shutil
from pathlib import Path

from playwright.sync_api import Browser, Page, Playwright

from tests.compose_file import REPOSITORY

NAMES = ("chromium", "chromium-browser", "google-chrome")
SCREENSHOTS = REPOSITORY / "test-results" / "screenshots"
LOAD_SECONDS = 90
"""A page may take so long on a machine that is busy with others."""


def find_chromium() -> str | None:
    """The installed one; Playwright's own would have to be fetched."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def launch(playwright: Playwright, executable: str) -> Browser:
    """Headless. Root has no sandbox, and a container no large /dev/shm."""
    arguments = ["--disable-dev-shm-usage"]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")
    return playwright.chromium.launch(
        executable_path=executable, args=arguments, timeout=1000 * LOAD_SECONDS
    )


def shoot(page: Page, name: str) -> None:
    """Write a picture of the whole page into ``SCREENSHOTS``."""
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


def requested(page: Page) -> list[str]:
    """The addresses that the page asks for from now on."""
    found: list[str] = []
    page.on("request", lambda request: found.append(request.url))
    return found


def complaints(page: Page) -> list[str]:
    """What its scripts throw, and what the console calls an error, from now on."""
    found: list[str] = []
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on(
        "console",
        lambda message: found.append(message.text) if message.type == "error" else None,
    )
    return found


def address_of(file: Path) -> str:
    return file.resolve().as_uri()
