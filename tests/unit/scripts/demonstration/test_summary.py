"""What the demo says at its end: the verdict first, and the figures for a file."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from scripts.demonstration.accounting import Account
from scripts.demonstration.effects import Effects
from scripts.demonstration.summary import Summary

GOOD = Account(
    bookings={"confirmed": 20, "cancelled": 1, "completed": 0, "no_show": 0},
    expected_ids=frozenset({"<a>", "<b>"}),
    copies={"<a>": 1, "<b>": 1},
    takeovers={},
    tasks={"email": {"succeeded": 2, "failed": 0, "retried": 0}},
    outbox={"done": 2, "pending": 0, "later": 0, "dead": 0},
)


AS_IT_SHOULD = Effects({"no_shows_marked": 2})


def summary(
    account: Account,
    *,
    killed: Mapping[str, int] | None = None,
    effects: Effects = AS_IT_SHOULD,
) -> Summary:
    return Summary(
        account,
        effects=effects,
        modules=("email",),
        killed=killed,
        seconds=60.04,
        mailbox=Path("/somewhere/mail"),
        database="sqlite:////somewhere/marketplace.sqlite3",
        logs=Path("/somewhere/logs"),
    )


def test_what_adds_up_says_so_first() -> None:
    good = summary(GOOD)
    assert good.adds_up
    assert good.text().splitlines()[0].startswith("It adds up: ")


@pytest.mark.parametrize(
    ("spoilt", "complaint"),
    [
        (replace(GOOD, copies={"<a>": 1}), "not in the mailbox: <b>"),
        (replace(GOOD, copies={"<a>": 1, "<b>": 1, "<c>": 1}), "should have got: <c>"),
        (replace(GOOD, copies={"<a>": 2, "<b>": 1}), "came twice, and nothing explains it: <a>"),
        (replace(GOOD, takeovers={"<a>": 1}), "uncertain"),
        (replace(GOOD, outbox={**GOOD.outbox, "pending": 3}), "3 pieces of work"),
        (replace(GOOD, outbox={**GOOD.outbox, "dead": 1}), "dead"),
        (replace(GOOD, tasks={}), "no task of email has succeeded"),
    ],
)
def test_what_does_not_add_up_is_named(spoilt: Account, complaint: str) -> None:
    bad = summary(spoilt)
    assert not bad.adds_up
    assert bad.text().startswith("It does not add up")
    assert complaint in bad.text()


def test_the_file_says_what_was_killed() -> None:
    assert summary(GOOD, killed={"worker": 3}).figures()["killed"] == {"worker": 3}
    assert summary(GOOD).figures()["killed"] == {}


def test_an_effect_that_is_missing_does_not_add_up() -> None:
    bad = summary(GOOD, effects=Effects(problems=["no slots of instructor 3 are cached"]))
    assert not bad.adds_up
    assert "no slots of instructor 3 are cached" in bad.text()


def test_under_kills_a_mail_may_be_doubled_as_often_as_it_was_uncertain() -> None:
    twice = replace(GOOD, copies={"<a>": 2, "<b>": 1}, takeovers={"<a>": 1})
    assert summary(twice, killed={"worker": 3}).adds_up
    thrice = replace(twice, copies={"<a>": 3, "<b>": 1})
    assert not summary(thrice, killed={"worker": 3}).adds_up
    another = replace(twice, copies={"<a>": 1, "<b>": 2})
    assert not summary(another, killed={"worker": 3}).adds_up


def test_the_figures_have_the_promised_names() -> None:
    assert summary(GOOD).figures() == {
        "bookings": {"confirmed": 20, "cancelled": 1, "completed": 0, "no_show": 0},
        "mails": {"expected": 2, "delivered": 2, "doubled": 0, "uncertain": 0},
        "tasks": {"email": {"succeeded": 2, "failed": 0, "retried": 0}},
        "outbox": {"done": 2, "pending": 0, "later": 0, "dead": 0},
        "lost": 0,
        "effects": {"no_shows_marked": 2},
        "killed": {},
        "mailbox": "/somewhere/mail",
        "database": "sqlite:////somewhere/marketplace.sqlite3",
        "seconds": 60.0,
    }


def test_a_module_that_never_ran_has_figures_too() -> None:
    nothing = {"succeeded": 0, "failed": 0, "retried": 0}
    assert summary(replace(GOOD, tasks={})).figures()["tasks"] == {"email": nothing}


def test_the_file_is_whole_or_not_there(tmp_path: Path) -> None:
    file = tmp_path / "demo.json"
    summary(GOOD).write(file)
    assert file.read_text().endswith("}\n")
    assert list(tmp_path.iterdir()) == [file]
