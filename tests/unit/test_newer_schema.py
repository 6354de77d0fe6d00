"""Code of the old version and a database of the new one, as in the middle of an upgrade."""

import logging
from collections.abc import Iterable, Iterator

import pytest
from sqlalchemy import Engine, text

from app import db, schema
from app.admin.__main__ import main
from app.routing import QUEUES

NEWER = "0099_of_the_next_version"

ADDITIONS = {
    "a table": ["CREATE TABLE reviews (id INTEGER PRIMARY KEY, stars INTEGER NOT NULL)"],
    "a column that may be empty": ["ALTER TABLE users ADD COLUMN phone VARCHAR(40)"],
    "a column with a default": [
        "ALTER TABLE bookings ADD COLUMN stars INTEGER DEFAULT 0 NOT NULL",
        "CREATE INDEX ix_bookings_stars ON bookings (stars)",
    ],
}
TAKEN_AWAY = {
    "column daily_metrics.revenue_cents is missing": [
        "ALTER TABLE daily_metrics DROP COLUMN revenue_cents"
    ],
    "table paused_queues is missing": ["DROP TABLE paused_queues"],
    "a unique index on users is unknown": ["CREATE UNIQUE INDEX one_name ON users (name)"],
}


@pytest.fixture
def database(empty_database: Engine) -> Iterator[Engine]:
    """A migrated database of this test's own, whose tables it may change; in force."""
    schema.upgrade(empty_database)
    in_force_before = db.use(empty_database)
    yield empty_database
    db.use(in_force_before)


def migrate_further(engine: Engine, statements: Iterable[str]) -> None:
    """What the next version's ``database upgrade`` would do."""
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
        connection.execute(
            text("UPDATE alembic_version SET version_num = :newer"), {"newer": NEWER}
        )


@pytest.mark.parametrize("statements", ADDITIONS.values(), ids=ADDITIONS)
def test_a_database_with_additions_of_a_newer_version_is_used_and_left_as_it_is(
    database: Engine, statements: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    migrate_further(database, statements)
    schema.prepare(database)
    assert schema.current_of(database) == NEWER
    (said,) = [record for record in caplog.records if record.name == "app.schema"]
    assert said.levelno == logging.WARNING
    assert said.message == (
        f"the database's schema, {NEWER}, is of a newer version than this code "
        f"({schema.newest()}), and has all that this code needs"
    )


@pytest.mark.parametrize(("problem", "statements"), TAKEN_AWAY.items(), ids=TAKEN_AWAY)
def test_a_newer_database_that_lacks_something_or_refuses_more_is_refused_in_one_line(
    database: Engine, problem: str, statements: list[str]
) -> None:
    migrate_further(database, statements)
    for ask in (schema.prepare, schema.check, schema.upgrade):
        with pytest.raises(schema.DatabaseNotReadyError) as caught:
            ask(database)
        line = str(caught.value)
        assert line.startswith("DATABASE_URL: the schema of ")
        assert f"is at {NEWER}, of a newer version, and does not fit this code" in line
        assert problem in line
        assert line.endswith("deploy the version that it was upgraded for")
        assert "\n" not in line


@pytest.mark.parametrize(
    "empty_database", [pytest.param("postgresql", marks=pytest.mark.integration)], indirect=True
)
def test_a_column_that_this_code_would_have_to_fill_in_is_refused(database: Engine) -> None:
    migrate_further(database, ["ALTER TABLE users ADD COLUMN phone VARCHAR(40) NOT NULL"])
    with pytest.raises(schema.DatabaseNotReadyError, match=r"column users\.phone must be filled"):
        schema.check(database)


def test_check_says_that_it_is_newer_and_fits_and_upgrade_that_there_is_nothing_to_do(
    database: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    migrate_further(database, ADDITIONS["a table"])
    assert [main(["database", action]) for action in ("check", "upgrade")] == [0, 0]
    said = capsys.readouterr().out.splitlines()
    assert (
        said
        == [
            f"the database is at revision {NEWER}, newer than this code's {schema.newest()}, and "
            "has all that this code needs"
        ]
        * 2
    )


def test_commands_work_on_a_newer_database_that_fits(
    database: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    migrate_further(database, ADDITIONS["a table"])
    assert main(["queues", "list"]) == 0
    assert f"{len(QUEUES)} queues" in capsys.readouterr().out


def test_commands_refuse_a_newer_database_that_does_not_fit(
    database: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    migrate_further(database, TAKEN_AWAY["table paused_queues is missing"])
    assert main(["queues", "list"]) == 2
    assert "table paused_queues is missing" in capsys.readouterr().err


def test_an_old_database_is_not_taken_for_a_newer_one(tmp_path: object) -> None:
    engine = db.create_database_engine(f"sqlite:///{tmp_path}/old.sqlite3")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
    with pytest.raises(schema.DatabaseNotReadyError, match=f"run {schema.UPGRADE_COMMAND}"):
        schema.check(engine)
    engine.dispose()
