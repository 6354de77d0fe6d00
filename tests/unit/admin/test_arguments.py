"""What may be typed, and that everything else is one line on stderr."""

import argparse
import io
from datetime import date, timedelta

import pytest
from sqlalchemy import Engine

from app.admin.arguments import UsageError, confirm, day, duration
from tests.unit.admin.conftest import Admin


class Terminal(io.StringIO):
    """A standard input at which a person sits."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("30s", timedelta(seconds=30)),
        ("5m", timedelta(minutes=5)),
        ("2h", timedelta(hours=2)),
        ("30d", timedelta(days=30)),
        ("0s", timedelta(0)),
        ("36500d", timedelta(days=36_500)),
    ],
)
def test_a_duration_is_a_number_and_a_unit(typed: str, meant: timedelta) -> None:
    assert duration(typed) == meant


@pytest.mark.parametrize(
    "typed",
    ["2 weeks ago", "2w", "2", "h", "", "-2h", "+2h", "1.5h", "2H", "2h30m", " 2h", "2h\n", "٢h"],
)
def test_anything_else_is_no_duration(typed: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="write 30s, 5m, 2h or 30d"):
        duration(typed)


@pytest.mark.parametrize("typed", ["36501d", "999999999999d"])
def test_a_duration_beyond_all_calendars_is_refused(typed: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="longer than 36500d"):
        duration(typed)


def test_a_date_is_written_as_in_iso_8601() -> None:
    assert day("2026-11-01") == date(2026, 11, 1)


@pytest.mark.parametrize(
    "typed", ["tomorrow", "20261101", "2026-W44-7", "2026-02-30", "1.11.2026", ""]
)
def test_anything_else_is_no_date(typed: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="write 2026-11-01"):
        day(typed)


@pytest.mark.parametrize("typed", ["9999-12-31", "2100-01-01", "1969-12-31", "0001-01-01"])
def test_a_date_of_another_century_is_said_to_be_one(typed: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as refused:
        day(typed)
    assert str(refused.value) == f"{typed} is not between 1970-01-01 and 2099-12-31"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("", "topic"),
        ("queues", "queues"),
        ("database", "action"),
        ("database drop", "drop"),
        ("deadletters", "action"),
        ("deadletters list --since=2_weeks_ago", "2_weeks_ago"),
        ("deadletters list --since", "--since"),
        ("deadletters list --tas=x", "--tas"),
        ("deadletters show", "ID"),
        ("deadletters show nobody", "nobody"),
        ("deadletters retry", "Give ids, or --all --task NAME"),
        ("deadletters retry --all", "--all needs --task NAME"),
        ("deadletters retry --task app.tasks.x", "goes with --all"),
        ("deadletters retry --all --task app.tasks.x an-id", "not both"),
        ("deadletters retry nobody", "nobody"),
        (
            "deadletters list --task app.tasks.email.delivr",
            "did you mean 'app.tasks.email.deliver'",
        ),
        ("deadletters list --task nonsense", "there is no task 'nonsense'"),
        ("deadletters retry --all --task nonsense", "there is no task 'nonsense'"),
        ("deadletters purge", "--before"),
        ("deadletters purge --before soon", "soon"),
        ("outbox", "action"),
        ("outbox show", "ID"),
        ("outbox show nobody", "nobody"),
        ("outbox cancel nobody", "nobody"),
    ],
)
def test_what_is_wrong_is_one_line_on_stderr(
    admin: Admin, database: Engine, command: str, said: str
) -> None:
    answer = admin(*command.split())
    assert answer.is_one_line_of_refusal, answer
    assert said in answer.err


@pytest.mark.parametrize("answer", ["y\n", "yes\n", " YES \n"])
def test_yes_at_the_terminal_confirms(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: str
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    confirm("Cancel 12 entries?", yes=False)
    asked = capsys.readouterr()
    assert (asked.out, asked.err) == ("", "Cancel 12 entries? [y/N] ")


@pytest.mark.parametrize("answer", ["", "\n", "n\n", "no\n", "yess\n"])
def test_any_other_answer_changes_nothing(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    with pytest.raises(UsageError, match="nothing was changed"):
        confirm("Cancel 12 entries?", yes=False)


def test_ctrl_c_at_the_question_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(Terminal):
        def readline(self, size: int | None = -1, /) -> str:
            raise KeyboardInterrupt

    monkeypatch.setattr("sys.stdin", Interrupted())
    with pytest.raises(UsageError, match="nothing was changed"):
        confirm("Cancel 12 entries?", yes=False)


def test_without_a_terminal_the_option_must_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(UsageError) as refused:
        confirm("Cancel 12 entries?", yes=False)
    assert str(refused.value) == "Cancel 12 entries? Add --yes to do it without a terminal"


def test_a_closed_standard_input_is_not_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(UsageError, match="--yes"):
        confirm("Cancel 12 entries?", yes=False)


def test_the_option_confirms_without_a_question(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    confirm("Cancel 12 entries?", yes=True)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("words", [("outbox", "show"), ("outbox", "list", "--task")], ids=" ".join)
def test_bytes_that_are_not_text_are_refused_in_one_line(
    admin: Admin, database: Engine, words: tuple[str, ...]
) -> None:
    answer = admin(*words, "a\udcff")
    assert answer.is_one_line_of_refusal
    assert answer.err == "a\N{REPLACEMENT CHARACTER}: not UTF-8 text\n"
