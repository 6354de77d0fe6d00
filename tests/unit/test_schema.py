"""Migrating: from nothing, back again, at the same time, and against what the models say."""

import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, create_engine, inspect, text

from app import db, schema
from app.models import Base
from tests.database import on_sqlite

MIGRATIONS = Path(schema.__file__).parent / "migrations"


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Engine]:
    """The engine of a database file that does not exist yet, in a folder that does not either."""
    engine = db.create_database_engine(f"sqlite:///{tmp_path}/var/empty.sqlite3")
    yield engine
    engine.dispose()


def contents(engine: Engine) -> set[str]:
    """The names of all that a database holds, apart from Alembic's own table."""
    with engine.connect() as connection:
        names = connection.scalars(
            text("SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'")
        )
        return set(names) - {"alembic_version", "alembic_version_pkc"}


def downgrade(engine: Engine, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, revision)


def test_upgrade_takes_a_missing_file_to_the_newest_revision(empty: Engine) -> None:
    assert schema.upgrade(empty) is True
    assert schema.current_of(empty) == schema.newest()


def test_a_second_upgrade_has_nothing_to_do(empty: Engine) -> None:
    schema.upgrade(empty)
    assert schema.upgrade(empty) is False


def test_preparing_a_missing_file_makes_its_folder_and_its_tables(empty: Engine) -> None:
    schema.prepare(empty)
    assert set(inspect(empty).get_table_names()) == {*Base.metadata.tables, "alembic_version"}


def test_asking_for_the_revision_of_a_missing_file_makes_nothing(empty: Engine) -> None:
    assert schema.current_of(empty) is None
    assert not Path(str(empty.url.database)).parent.exists()


def test_a_downgrade_leaves_nothing_and_the_upgrade_after_it_makes_the_same(empty: Engine) -> None:
    schema.upgrade(empty)
    first = contents(empty)
    downgrade(empty, "base")
    assert contents(empty) == set()
    schema.upgrade(empty)
    assert contents(empty) == first


def test_the_migrations_make_what_the_models_say(database: Engine) -> None:
    with database.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, Base.metadata) == []


@on_sqlite
def test_the_migrations_make_the_constraints_and_conditions_of_the_models(
    database: Engine, tmp_path: Path
) -> None:
    """What ``compare_metadata`` does not look at: checks, and the WHERE of a partial index."""
    modelled = db.create_database_engine(f"sqlite:///{tmp_path}/modelled.sqlite3")
    Base.metadata.create_all(modelled)
    assert _definitions(database) == _definitions(modelled)
    modelled.dispose()


def _definitions(engine: Engine) -> dict[str, list[str]]:
    """Each table's and index's SQL as a sorted list of its parts, for the order may differ."""
    with engine.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT name, sql FROM sqlite_master WHERE type IN ('table', 'index') AND sql > ''"
            )
        ).all()
    return {
        name: sorted(" ".join(part.split()) for part in _parts(sql.replace(f'"{name}"', name)))
        for name, sql in rows
        if name != "alembic_version"
    }


def _parts(sql: str) -> list[str]:
    """``sql`` cut at the commas of the outermost parentheses, and at those themselves."""
    depth, parts = 0, [""]
    for sign in sql:
        depth += (sign == "(") - (sign == ")")
        if (depth == 1 and sign in "(,") or (depth == 0 and sign == ")"):
            parts.append("")
        else:
            parts[-1] += sign
    return parts


def test_of_many_that_upgrade_at_once_one_works_and_the_others_wait(tmp_path: Path) -> None:
    def upgrade(_number: int) -> bool:
        engine = db.create_database_engine(f"sqlite:///{tmp_path}/var/raced.sqlite3")
        try:
            return schema.upgrade(engine)
        finally:
            engine.dispose()

    with ThreadPoolExecutor(8) as threads:
        assert sorted(threads.map(upgrade, range(8))) == [False] * 7 + [True]


@pytest.mark.parametrize("ask", [schema.prepare, schema.current_of])
def test_a_folder_that_cannot_be_made_is_one_line(
    tmp_path: Path, ask: Callable[[Engine], object]
) -> None:
    (tmp_path / "file").touch()
    engine = db.create_database_engine(f"sqlite:///{tmp_path}/file/below.sqlite3")
    with pytest.raises(schema.DatabaseNotReadyError) as caught:
        ask(engine)
    message = str(caught.value)
    assert message.startswith(f"DATABASE_URL: cannot use sqlite:///{tmp_path}/file/below.sqlite3: ")
    assert "\n" not in message
    assert not caught.value.may_pass


def test_a_locked_file_may_be_free_later(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/locked.sqlite3"
    impatient = create_engine(url, connect_args={"timeout": 0})
    other = sqlite3.connect(tmp_path / "locked.sqlite3")
    other.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(schema.DatabaseNotReadyError, match="database is locked") as caught:
            schema.upgrade(impatient)
    finally:
        other.close()
        impatient.dispose()
    assert caught.value.may_pass


@on_sqlite
@pytest.mark.parametrize("ask", [schema.prepare, schema.upgrade, schema.current_of])
def test_a_file_that_may_only_be_read_is_one_line(
    database: Engine, ask: Callable[[Engine], object]
) -> None:
    """Also where its schema is the newest and there is nothing to write yet."""
    read_only = db.create_database_engine(
        f"sqlite:///file:{database.url.database}?mode=ro&uri=true"
    )
    with pytest.raises(schema.DatabaseNotReadyError, match="attempt to write a readonly database"):
        ask(read_only)
    read_only.dispose()


def test_a_file_that_is_no_database_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear Ada, this is a letter and not a database. " * 100)
    engine = db.create_database_engine(f"sqlite:///{path}")
    with pytest.raises(schema.DatabaseNotReadyError, match=r"^DATABASE_URL: .*not a database.*$"):
        schema.prepare(engine)


def test_the_password_of_a_database_that_is_away_is_not_shown() -> None:
    def refuse() -> None:
        raise psycopg.OperationalError("connection refused\nIs the server running?")

    url = "postgresql+psycopg://ada:secret@db.example/market"
    for given in (url, f"{url}?password=secret&sslpassword=secret"):
        engine = create_engine(given, creator=refuse)
        with pytest.raises(schema.DatabaseNotReadyError) as caught:
            schema.prepare(engine)
        assert "ada:***@db.example/market: connection refused;" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert "secret" not in str(caught.value)
