"""Which image a variable names, and what keeps images from being built."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from scripts.live import images
from scripts.live.images import image_from
from tests.compose_file import REPOSITORY


@pytest.fixture(autouse=True)
def _of_this_test(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(images, "REPOSITORY", tmp_path)
    monkeypatch.delenv("REDIS_IMAGE", raising=False)


def test_the_public_one_where_nobody_says_anything() -> None:
    assert image_from("REDIS_IMAGE", "redis:7-alpine") == "redis:7-alpine"


@pytest.mark.parametrize("line", ["REDIS_IMAGE=mine:1", "REDIS_IMAGE = 'mine:1'  # of today"])
def test_that_of_the_file_before_the_public_one(tmp_path: Path, line: str) -> None:
    (tmp_path / ".env").write_text(f"# images\nPYTHON_IMAGE=other:1\n{line}\n")
    assert image_from("REDIS_IMAGE", "redis:7-alpine") == "mine:1"


def test_that_of_the_environment_before_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("REDIS_IMAGE=mine:1\n")
    monkeypatch.setenv("REDIS_IMAGE", "mine:2")
    assert image_from("REDIS_IMAGE", "redis:7-alpine") == "mine:2"


def build_images(*words: str, docker: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run scripts/build_images of a checkout without images, with a stand-in for docker."""
    for name in ("bin", "scripts"):
        (folder / name).mkdir()
    shutil.copy(REPOSITORY / "scripts/build_images", folder / "scripts")
    command = folder / "bin/docker"
    command.write_text(f"#!/bin/sh\n{docker}\n")
    command.chmod(0o755)
    return subprocess.run(
        [folder / "scripts/build_images", *words],
        env={**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("words", "docker", "status", "said"),
    [
        (["--monitor"], "exit 0", 2, "unknown argument '--monitor'; usage: scripts/build_images"),
        ([], "exit 1", 1, "docker does not answer; start it, or run the tests with --redis="),
    ],
    ids=["mistyped", "no docker"],
)
def test_what_keeps_images_from_being_built_is_one_line(
    tmp_path: Path, words: list[str], docker: str, status: int, said: str
) -> None:
    done = build_images(*words, docker=docker, folder=tmp_path)
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / ".env").exists()


PUBLISHED = """case "$*" in *RepoDigests*) echo "published@sha256:abc";; esac"""


def test_public_images_are_pinned_by_their_digests(tmp_path: Path) -> None:
    done = build_images(docker=PUBLISHED, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / ".env").read_text().splitlines() == [
        "REDIS_IMAGE=redis:7-alpine@sha256:abc",
        "POSTGRES_IMAGE=postgres:16-alpine@sha256:abc",
        "PYTHON_IMAGE=python:3.12-slim@sha256:abc",
        "MAIL_IMAGE=axllent/mailpit:v1.27@sha256:abc",
    ]


def test_our_image_is_built_on_the_pinned_one_and_a_pin_stays(tmp_path: Path) -> None:
    pinned = "PYTHON_IMAGE=python:3.12-slim@sha256:mine\n"
    (tmp_path / ".env").write_text(pinned)
    logging = f'echo "$*" >>"{tmp_path}/calls"; {PUBLISHED}'
    assert build_images(docker=logging, folder=tmp_path).returncode == 0
    assert pinned in (tmp_path / ".env").read_text()
    assert f"--build-arg {pinned.strip()} " in (tmp_path / "calls").read_text()
