"""What may be typed after ``scripts/demo``, and what one line says of the rest."""

from pathlib import Path

import pytest

from scripts import arguments
from scripts.demonstration.options import Options, parse


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        parse(arguments)
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_nothing_is_needed() -> None:
    assert parse([]) == Options(seconds=None, kill=False, seed=None, json=None, folder=None)


def test_all_can_be_given(tmp_path: Path) -> None:
    file = tmp_path / "demo.json"
    words = ["--seconds", "60", "--kill", "--seed", "7", "--json", str(file)]
    assert parse(words) == Options(seconds=60.0, kill=True, seed=7, json=file, folder=None)


@pytest.mark.parametrize(
    ("typed", "seconds"), [("60", 60.0), ("0.5", 0.5), ("90s", 90.0), ("5m", 300.0), ("2h", 7200.0)]
)
def test_a_time_to_run_is_seconds_or_a_duration(typed: str, seconds: float) -> None:
    assert parse(["--seconds", typed]).seconds == seconds


@pytest.mark.parametrize("seconds", ["soon", "0", "0s", "-1", "nan", "inf", "", "5 m"])
def test_no_number_of_seconds_is_refused(capsys: pytest.CaptureFixture[str], seconds: str) -> None:
    assert "--seconds" in refused(capsys, f"--seconds={seconds}")


@pytest.mark.parametrize(
    "words", [["--sekonds=60"], ["now"], ["--seed=x"], ["--json"], ["--sec=6"]]
)
def test_other_words_are_refused(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert refused(capsys, *words).startswith("demo: ")


def test_a_file_in_a_folder_that_is_not_there_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "none" / "demo.json"
    assert str(file.parent) in refused(capsys, "--json", str(file))
    assert not file.parent.exists()


def test_a_file_that_is_a_folder_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert "is a folder" in refused(capsys, "--json", str(tmp_path))


def test_a_folder_that_holds_something_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "somebodys").touch()
    assert "not empty" in refused(capsys, "--folder", str(tmp_path))


def test_names_are_relative_to_where_the_user_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(arguments.CALLED_FROM, str(tmp_path))
    assert parse(["--json", "demo.json"]).json == tmp_path / "demo.json"


def test_the_check_alone_says_whether_there_is_something_to_start(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments.check(lambda: parse(["--kill"]))
    with pytest.raises(SystemExit) as ended:
        arguments.check(lambda: parse(["--help"]))
    assert ended.value.code == arguments.HELP_WAS_SHOWN
    assert "--seconds" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["file/x", "file/x/y"])
def test_a_folder_below_a_file_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    (tmp_path / "file").touch()
    assert "cannot be made: " in refused(capsys, "--folder", str(tmp_path / name))


def test_a_folder_that_can_be_made_is_not_made_yet(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "demo"
    assert parse(["--folder", str(folder)]).folder == folder
    assert list(tmp_path.iterdir()) == []
