"""Metrics of the past, asked for on the command line."""

import pytest
from sqlalchemy import Engine

from app import db
from app.services.analytics import GENERATE_DAILY
from tests.builders import planned
from tests.fakes import FakeClock
from tests.unit.admin.conftest import Admin


def plans() -> list[tuple[str, list[str]]]:
    with db.reading() as session:
        return sorted(planned(session))


def test_a_backfill_says_what_will_be_counted(
    admin: Admin, database: Engine, now: FakeClock
) -> None:
    answer = admin("analytics", "backfill", "2026-06-29", "2026-06-30")
    assert (answer.status, answer.err) == (0, "")
    assert answer.lines[0] == "2 days will be counted, 2026-06-29 to 2026-06-30"
    assert plans() == [(GENERATE_DAILY, ["2026-06-29"]), (GENERATE_DAILY, ["2026-06-30"])]


def test_a_backfill_tells_a_machine(admin: Admin, database: Engine, now: FakeClock) -> None:
    answer = admin("analytics", "backfill", "2026-06-30", "2026-06-30", "--json")
    assert answer.json == {"first": "2026-06-30", "last": "2026-06-30", "days": 1}


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("2026-06-30", "2026-06-29"), "is before the first"),
        (("2026-06-30", "2026-07-01"), "is not over in US/Eastern"),
        (("2025-06-29", "2026-06-30"), "367 days are more than 366"),
        (("2026-06-30", "today"), "'today' is not a date"),
        (("2026-06-30",), "LAST"),
        ((), "FIRST"),
    ],
)
def test_a_backfill_that_cannot_be_done_is_one_line(
    admin: Admin, database: Engine, now: FakeClock, words: tuple[str, ...], reason: str
) -> None:
    answer = admin("analytics", "backfill", *words)
    assert answer.is_one_line_of_refusal
    assert reason in answer.err
    assert plans() == []
