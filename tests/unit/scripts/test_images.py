"""Which image a variable names."""

from pathlib import Path

import pytest

from scripts.live import images
from scripts.live.images import image_from


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
