"""The schema's commands, and what the others say of a database that is not ready."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from app import db, schema
from tests.database import on_sqlite
from tests.unit.admin.conftest import Admin


@pytest.fixture
def missing(tmp_path: Path) -> Iterator[Path]:
    """A database file that is not there, in force for this test."""
    path = tmp_path / "var" / "missing.sqlite3"
    engine = db.create_database_engine(f"sqlite:///{path}")
    in_force_before = db.use(engine)
    yield path
    db.use(in_force_before)
    engine.dispose()


def test_an_upgrade_is_done_once_and_then_checked(admin: Admin, missing: Path) -> None:
    behind = admin("database", "check")
    assert (behind.status, behind.err) == (1, "")
    assert schema.UPGRADE_COMMAND in behind.out
    assert "now at revision" in admin("database", "upgrade").out
    assert "already at revision" in admin("database", "upgrade").out
    checked = admin("database", "check")
    assert checked.status == 0
    assert "the newest" in checked.out


@pytest.mark.parametrize(
    "command",
    ["deadletters list", "deadletters retry x", "deadletters purge --before 1d", "outbox status"],
)
def test_without_the_tables_a_command_says_how_to_make_them_and_makes_nothing(
    admin: Admin, missing: Path, command: str
) -> None:
    answer = admin(*command.split())
    assert answer.is_one_line_of_refusal, answer
    assert schema.UPGRADE_COMMAND in answer.err
    assert not missing.exists()


@on_sqlite
def test_a_database_that_is_busy_is_one_line(admin: Admin, database: Engine) -> None:
    impatient = db.create_database_engine(str(database.url), busy_timeout=0.01)
    with database.connect() as holder:
        holder.execute(text("SELECT 1"))  # takes the write lock
        db.use(impatient)
        answer = admin("deadletters", "purge", "--before", "1d")
    impatient.dispose()
    assert answer.is_one_line_of_refusal, answer
    assert "database is locked" in answer.err
