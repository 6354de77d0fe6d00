"""Every command refuses a bad argument with one line, exit status 2 and nothing left behind."""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from app.admin import arguments as admin
from scripts.arguments import command, duration, new_file, number, run_command
from simulations.arguments import a_date


@pytest.mark.parametrize(
    "text", ["30s", "5m", "2h", "30d", "0s", "36500d", "36501d", "2h30m", "2", "2w", "", "-2h"]
)
def test_durations_are_those_of_the_admin_commands(text: str) -> None:
    assert _answer(duration, text) == _answer(admin.duration, text)


def _answer(read: Callable[[str], object], text: str) -> object:
    try:
        return read(text)
    except argparse.ArgumentTypeError as error:
        return str(error)


@pytest.mark.parametrize(
    "text", ["2026-11-01", "20261101", "2026-W44-7", "2100-01-01", "1969-12-31", "tomorrow", ""]
)
def test_dates_are_those_of_the_admin_commands(text: str) -> None:
    assert _answer(a_date, text) == _answer(admin.day, text)


@pytest.mark.parametrize(
    ("least", "most", "said"),
    [
        (None, None, "'x' is not a whole number"),
        (1, None, "'x' is not a whole number from 1 on"),
        (None, 5, "'x' is not a whole number up to 5"),
        (1, 5, "'x' is not a whole number from 1 to 5"),
    ],
)
def test_a_number_is_refused_with_its_bounds(
    least: int | None, most: int | None, said: str
) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as refused:
        number(least, most)("x")
    assert str(refused.value) == said
    assert number(least, most)("5") == 5


@pytest.mark.parametrize("text", ["0", "6", "1.5", ""])
def test_a_number_outside_its_bounds_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="from 1 to 5"):
        number(1, 5)(text)


def test_a_bad_argument_of_several_lines_is_refused_in_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        command("prove_it", "Prove it.\n\nLong.").parse_args(["one\ntwo\r\nthree"])
    err = capsys.readouterr().err
    assert ended.value.code == 2
    assert err.startswith("python -m scripts.prove_it: unrecognized arguments: one two three")
    assert len(err.splitlines()) == 1


def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    assert new_file(str(tmp_path / "new")) == tmp_path / "new"
    for name in (".", "none/new", ""):
        with pytest.raises(argparse.ArgumentTypeError):
            new_file(str(tmp_path / name) if name else "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_interrupted_ends_in_one_line(
    number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def main() -> int:
        os.kill(os.getpid(), number)
        return 0

    try:
        assert run_command(main) == 130
    finally:
        signal.signal(signal.SIGTERM, before)
    assert capsys.readouterr() == ("", "interrupted: nothing is kept of this run\n")
