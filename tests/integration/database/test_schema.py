"""Migrating PostgreSQL: by one at a time, back again, and against what the models say."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, text

from app import db, schema
from app.models import Base

pytestmark = pytest.mark.parametrize("empty_database", ["postgresql"], indirect=True)

# Exclusion constraints and what they are made of are in the migrations alone.
CONSTRAINTS = text(
    "SELECT conrelid::regclass::text AS of, conname, pg_get_constraintdef(oid) FROM pg_constraint"
    " WHERE connamespace = 'public'::regnamespace AND contype <> 'x'"
)
INDEXES = text(
    "SELECT tablename, indexname, indexdef FROM pg_indexes"
    " WHERE schemaname = 'public' AND indexdef NOT LIKE '% USING gist %'"
)
EXCLUSIONS = text("SELECT conname FROM pg_constraint WHERE contype = 'x' ORDER BY conname")
RELATIONS = text(
    "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    " AND relname NOT LIKE 'alembic%'"
)


def definitions(engine: Engine) -> set[Any]:
    with engine.connect() as connection:
        found = {
            tuple(row)
            for statement in (CONSTRAINTS, INDEXES)
            for row in connection.execute(statement)
        }
    return {row for row in found if row[0] != "alembic_version"}


def names(engine: Engine, statement: Any) -> list[str]:
    with engine.connect() as connection:
        return list(connection.scalars(statement))


def test_an_empty_database_is_brought_to_the_newest_revision(empty_database: Engine) -> None:
    assert schema.current_of(empty_database) is None
    assert schema.upgrade(empty_database) is True
    assert schema.current_of(empty_database) == schema.newest()
    assert names(empty_database, EXCLUSIONS) == [
        "bookings_instructor_overlap",
        "bookings_student_overlap",
    ]


def test_of_many_that_upgrade_at_once_one_works_and_the_others_wait(
    empty_database: Engine,
) -> None:
    def upgrade(_number: int) -> bool:
        engine = db.create_database_engine(empty_database.url.render_as_string(False))
        try:
            return schema.upgrade(engine)
        finally:
            engine.dispose()

    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(upgrade, range(4))) == [False] * 3 + [True]


def test_a_downgrade_leaves_nothing_and_the_upgrade_after_it_makes_the_same(
    empty_database: Engine,
) -> None:
    schema.upgrade(empty_database)
    first = definitions(empty_database)
    config = Config()
    config.set_main_option("script_location", "app/migrations")
    with empty_database.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    assert names(empty_database, RELATIONS) == []
    schema.upgrade(empty_database)
    assert definitions(empty_database) == first


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_the_migrations_make_the_constraints_and_conditions_of_the_models(
    database: Engine, empty_database: Engine
) -> None:
    """Also what ``compare_metadata`` does not look at: checks, and the WHERE of an index."""
    Base.metadata.create_all(empty_database)
    assert definitions(database) == definitions(empty_database)
