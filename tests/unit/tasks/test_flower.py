"""What Flower finds in its environment."""

import os
import sys
from pathlib import Path

import pytest

from app.settings import SettingsError
from app.tasks import flower


@pytest.fixture(autouse=True)
def no_flower_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FLOWER_ADDRESS", "FLOWER_BASIC_AUTH", "FLOWER_BASIC_AUTH_FILE"):
        # Set first, so that what the code sets is undone too.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_it_listens_on_loopback_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    flower.configure()
    assert os.environ["FLOWER_ADDRESS"] == "127.0.0.1"
    monkeypatch.setenv("FLOWER_ADDRESS", "0.0.0.0")  # noqa: S104
    flower.configure()
    assert os.environ["FLOWER_ADDRESS"] == "0.0.0.0"  # noqa: S104


def test_its_login_may_stand_in_a_file_and_is_read_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "login").write_text("admin:hunter2\n")
    monkeypatch.setenv("FLOWER_BASIC_AUTH_FILE", str(tmp_path / "login"))
    for _ in range(2):
        flower.configure()
        assert os.environ["FLOWER_BASIC_AUTH"] == "admin:hunter2"


def test_a_login_that_cannot_be_read_is_an_error_and_no_open_door(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FLOWER_BASIC_AUTH_FILE", str(tmp_path / "missing"))
    with pytest.raises(SettingsError, match=r"^FLOWER_BASIC_AUTH_FILE: cannot read"):
        flower.configure()


def typed(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    """Let this process be ``celery -A app.tasks`` with these words."""
    line = ["celery", "-A", "app.tasks", *words]
    monkeypatch.setattr(sys, "argv", line)
    monkeypatch.setattr(sys, "orig_argv", ["python", *line])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)


@pytest.mark.parametrize("port", ["abc", "99999", "-1"])
def test_a_port_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    typed(monkeypatch, "flower", f"--port={port}")
    with pytest.raises(SettingsError, match=f"^--port {port}: no port; for example --port=5555$"):
        flower.configure()


def test_the_port_of_another_command_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch, "report", "--port=abc")
    flower.configure()
