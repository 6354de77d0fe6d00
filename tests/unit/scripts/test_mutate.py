"""Each mutation still has the places that it changes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from scripts import mutate
from scripts.mutate import MUTATIONS, Change, Mutation


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_its_places_are_there_once_and_are_changed(mutation: Mutation, tmp_path: Path) -> None:
    for file in {change.file for change in mutation.changes}:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(mutate.ROOT / file, tmp_path / file)
    mutate.apply(mutation, tmp_path)
    for change in mutation.changes:
        changed = (tmp_path / change.file).read_text()
        assert changed != (mutate.ROOT / change.file).read_text()
        compile(changed, change.file, "exec")


def test_a_place_that_is_gone_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    with pytest.raises(ValueError, match=r"is 0 times in a\.py, not once"):
        mutate.apply(Mutation("gone", (Change("a.py", "y = 2", "y = 3"),)), tmp_path)


def test_names_choose_by_how_they_begin() -> None:
    assert [each.name for each in mutate.chosen(["ack"])] == ["ack-early"]
    assert mutate.chosen([]) == list(MUTATIONS)


@pytest.mark.parametrize(
    ("word", "status", "said"),
    [("no-such", 2, "there is no mutation 'no-such', only "), ("--help", 0, "ack-early")],
)
def test_what_cannot_be_chosen_or_is_only_asked_changes_nothing(
    word: str, status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        mutate.main([word])
    printed = capsys.readouterr()
    assert ended.value.code == status
    assert said in printed.out + printed.err
    assert "found by" not in printed.out
