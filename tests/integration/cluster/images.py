"""The images of a cluster; our own is built, so that what is tested is the code as it is now."""

from __future__ import annotations

import fcntl
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.live.deployment import REPOSITORY
from scripts.live.images import image_from
from tests.container_images import image_is_here, inspect

BUILT = "instainstru-tasks:tests"
"""Not the name that compose runs: the tests leave that image alone."""
BUILD_TIMEOUT = 600.0  # seconds: the dependencies are installed when they have changed


class ImageMissingError(RuntimeError):
    """Why there is no image; one line that says what to do."""


def our_image() -> str:
    """The image that APP_IMAGE names in the environment, else one built from this checkout.

    Raises ``ImageMissingError``.
    """
    chosen = os.environ.get("APP_IMAGE", "")
    if chosen and image_is_here(chosen):
        return chosen
    name = chosen or BUILT
    with _one_at_a_time():  # the second of several test processes finds all layers
        replaced = inspect(name)
        made = _build(name)
        if replaced and replaced["Id"] != made:
            # Fails where a container still runs it.
            subprocess.run(["docker", "image", "rm", replaced["Id"]], capture_output=True)
    return made


def _build(name: str) -> str:
    """The id of the image, which stays while the name becomes another checkout's."""
    python = image_from("PYTHON_IMAGE", "python:3.12-slim")
    done = subprocess.run(
        ["docker", "build", "--quiet", f"--build-arg=PYTHON_IMAGE={python}", "--tag", name, "."],
        cwd=REPOSITORY,
        env={**os.environ, "DOCKER_BUILDKIT": "0"},  # takes a stand-in from the local images
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT,
    )
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise ImageMissingError(f"docker build: {reason}; try scripts/build_images")
    return done.stdout.split()[-1]


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    lock = Path(tempfile.gettempdir()) / f"instainstru-tasks-build-{os.getuid()}.lock"
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
