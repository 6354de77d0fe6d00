"""The systemd units: what they promise, and that systemd accepts them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app.settings import Settings
from app.tasks.watchdog import EXIT_STATUS

FOLDER = Path(__file__).parents[2] / "deploy" / "systemd"
UNITS = sorted(FOLDER.glob("*.service"))
WORKER = FOLDER / "instainstru-worker@.service"
CLEAN_UP_SECONDS = 30
"""From the end of the last task to the end of the worker, generously."""
HARDENING = {
    "CapabilityBoundingSet": "",
    "NoNewPrivileges": "yes",
    "PrivateTmp": "yes",
    "ProtectHome": "yes",
    "ProtectSystem": "strict",
}


def options(unit: Path) -> dict[str, list[str]]:
    """Each option of a unit with its values, in order; a section's name is not kept."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        name, is_option, value = line.partition("=")
        if is_option and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def one(unit: Path, option: str) -> str:
    (value,) = options(unit)[option]
    return value


def test_there_is_a_unit_for_workers_for_beat_and_for_flower() -> None:
    commands = [one(unit, "ExecStart").split()[3] for unit in UNITS]
    assert sorted(commands) == ["beat", "flower", "worker"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_only_the_main_process_is_told_to_stop(unit: Path) -> None:
    assert one(unit, "KillMode") == "mixed"
    assert one(unit, "KillSignal") == "SIGTERM"


def test_a_worker_may_take_longer_to_stop_than_any_task() -> None:
    limit = Settings.model_fields["task_time_limit_seconds"].default
    assert int(one(WORKER, "TimeoutStopSec")) >= limit + CLEAN_UP_SECONDS


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_all_but_a_wrong_setting_is_started_again(unit: Path) -> None:
    assert one(unit, "Restart") == "always"
    assert one(unit, "RestartPreventExitStatus") == "2"
    assert one(unit, "StartLimitIntervalSec") == "0"
    assert "SuccessExitStatus" not in options(unit)
    assert str(EXIT_STATUS) not in one(unit, "RestartPreventExitStatus").split()


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_is_hardened_and_takes_its_settings_from_a_file(unit: Path) -> None:
    assert {name: one(unit, name) for name in HARDENING} == HARDENING
    assert options(unit)["EnvironmentFile"][0] == "/etc/instainstru/instainstru.env"
    assert one(unit, "User") != "root"


def test_workers_and_beat_are_restarted_by_a_reload() -> None:
    for unit in UNITS:
        reload = options(unit).get("ExecReload", [])
        assert reload == ([] if "flower" in unit.name else ["/bin/kill -HUP $MAINPID"])


def test_the_example_file_names_only_settings_that_there_are() -> None:
    named = set(options(FOLDER / "instainstru.env"))
    assert named <= {field.upper() for field in Settings.model_fields}


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_finds_nothing_wrong_with_a_unit(unit: Path, tmp_path: Path) -> None:
    """With a celery command that exists here: systemd asks whether it may be executed."""
    copy = tmp_path / unit.name
    here = str(Path(sys.executable).parent)
    copy.write_text(unit.read_text().replace("/srv/instainstru/.venv/bin", here))
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", copy],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    about_us = [line for line in checked.stderr.splitlines() if unit.stem in line]
    assert (checked.returncode, about_us) == (0, [])
