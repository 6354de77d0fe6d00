"""What a load test leaves that was killed, and the command that takes it away."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from random import Random

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, func, select

from app import db
from app.models import Base
from app.settings import Settings
from app.tasks.testing import without_broker
from loadtests import _made_up_people
from loadtests.__main__ import IDLE, main
from loadtests._ledger import Ledger
from loadtests._marketplace import Marketplace
from tests.builders import a_lesson
from tests.fakes import FakeClock, FakeSlotCache

KILLED, RUNNING = "a" * 32, "b" * 32
BEGAN = datetime(2026, 7, 1, 12, tzinfo=UTC)
SETTINGS = Settings(redis_url=SecretStr("redis://nowhere/0"))
CLEAN = ("clean", "--host", "redis://nowhere/0")
PEOPLE = _made_up_people.STUDENTS + _made_up_people.INSTRUCTORS


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> FakeSlotCache:
    made = FakeSlotCache()

    @contextmanager
    def slot_cache_from(settings: Settings) -> Iterator[FakeSlotCache]:
        yield made

    monkeypatch.setattr(_made_up_people, "slot_cache_from", slot_cache_from)
    return made


@pytest.fixture
def now(database: Engine, cache: FakeSlotCache, monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    monkeypatch.setenv("DATABASE_URL", database.url.render_as_string(hide_password=False))
    return FakeClock.install(monkeypatch, BEGAN)


def book_and_be_killed(trace_id: str) -> None:
    with without_broker():
        Marketplace(SETTINGS, Ledger(trace_id, lambda *_: None), rng=Random(7)).book()


def rows() -> dict[str, int]:
    with db.reading() as session:
        return {
            table.name: session.scalar(select(func.count()).select_from(table)) or 0
            for table in Base.metadata.sorted_tables
        }


def test_what_a_killed_load_test_left_is_removed_and_nobody_elses(
    now: FakeClock, cache: FakeSlotCache, capsys: pytest.CaptureFixture[str]
) -> None:
    with db.transaction() as session:
        a_lesson(session, starts_at=datetime(2026, 7, 2, 9, tzinfo=UTC))
    others = rows()
    book_and_be_killed(KILLED)
    now.now += IDLE * 2
    assert main(CLEAN) == 0
    assert rows() == others
    assert len(cache.deleted) == _made_up_people.INSTRUCTORS
    assert capsys.readouterr().out == f"removed what load test {KILLED} left\n"


def test_a_load_test_that_is_under_way_is_left_alone_and_named(
    now: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    book_and_be_killed(KILLED)
    now.now += IDLE * 2
    book_and_be_killed(RUNNING)
    now.now += IDLE / 2
    assert main(CLEAN) == 1
    assert rows()["users"] == PEOPLE
    said = capsys.readouterr().out.splitlines()
    assert said == [
        f"removed what load test {KILLED} left",
        f"left alone load test {RUNNING}, which may be under way: "
        "if not, say this again after 2026-07-01 12:15:00 UTC",
    ]


def test_where_nothing_is_left_it_says_so(
    now: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(CLEAN) == 0
    assert capsys.readouterr().out == "no load test left anything\n"


def test_slots_that_stay_cached_are_an_error_in_one_line(
    now: FakeClock, cache: FakeSlotCache, capsys: pytest.CaptureFixture[str]
) -> None:
    book_and_be_killed(KILLED)
    now.now += IDLE * 2
    cache.down = True
    assert main(CLEAN) == 1
    assert capsys.readouterr().err == ("free slots of made-up instructors stay cached: no answer\n")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "required: command"),
        (("clean",), "--host"),
        (("clean", "--host", "http://nowhere"), "--host: "),
    ],
)
def test_bad_input_is_said_in_the_last_line(
    now: FakeClock, words: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    book_and_be_killed(KILLED)
    now.now += IDLE * 2
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert expected in capsys.readouterr().err.splitlines()[-1]
    assert rows()["users"] == PEOPLE


def test_without_a_database_nothing_is_cleaned(
    now: FakeClock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DATABASE_URL")
    with pytest.raises(SystemExit) as ended:
        main(CLEAN)
    assert ended.value.code == 2
    assert "DATABASE_URL is missing" in capsys.readouterr().err.splitlines()[-1]
