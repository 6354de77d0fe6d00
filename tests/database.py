"""A migrated database for each test: SQLite, and PostgreSQL where integration tests run."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL, Engine, text

from app import db, schema
from tests.postgres_databases import Databases, EmptiedDatabase

on_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
"""For a test that is about SQLite alone."""
on_postgresql = pytest.mark.parametrize(
    "database", [pytest.param("postgresql", marks=pytest.mark.integration)], indirect=True
)
"""For a test that is about PostgreSQL alone."""


_both = ["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)]


@pytest.fixture(params=_both)
def database(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """The engine of an empty migrated database, which is the one in force for this test."""
    url = request.getfixturevalue(f"_{request.param}_url")
    engine = db.create_database_engine(url)
    in_force_before = db.use(engine)
    yield engine
    db.use(in_force_before)
    engine.dispose()


@pytest.fixture(params=_both)
def empty_database(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """The engine of a database without a schema, which is not in force."""
    engine = db.create_database_engine(request.getfixturevalue(f"_empty_{request.param}_url"))
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def _migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file at the newest schema, which nobody has open."""
    path = tmp_path_factory.mktemp("database") / "migrated.sqlite3"
    engine = db.create_database_engine(f"sqlite:///{path}")
    schema.upgrade(engine)
    engine.dispose()
    return path


@pytest.fixture
def _sqlite_url(_migrated: Path, tmp_path: Path) -> str:
    path = tmp_path / "test.sqlite3"
    shutil.copy(_migrated, path)
    return f"sqlite:///{path}"


@pytest.fixture
def _empty_sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/empty.sqlite3"


@pytest.fixture
def _empty_postgresql_url(postgres_databases: Databases) -> Iterator[str]:
    made = postgres_databases.create()
    yield made.render_as_string(hide_password=False)
    postgres_databases.drop(made)


@pytest.fixture(scope="session")
def postgres_databases(postgres_url: URL) -> Iterator[Databases]:
    """Makes databases on the chosen PostgreSQL; they are gone after the run."""
    databases = Databases(postgres_url)
    yield databases
    databases.drop_all()


@pytest.fixture(scope="session")
def _emptied(postgres_databases: Databases) -> Iterator[EmptiedDatabase]:
    emptied = EmptiedDatabase(postgres_databases)
    yield emptied
    emptied.close()


@pytest.fixture
def _postgresql_url(_emptied: EmptiedDatabase) -> str:
    return _emptied.url().render_as_string(hide_password=False)


def cut_off_others(engine: Engine) -> None:
    """Let PostgreSQL end all connections to this database but ``engine``'s, and wait for it."""
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with engine.connect() as connection:
        connection.execute(text(f"SELECT pg_terminate_backend(pid, 5000) {others}"))
