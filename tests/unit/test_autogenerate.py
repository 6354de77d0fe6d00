"""A migration that ``alembic revision`` writes runs as it is, on both databases."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Engine

from app import schema

ROOT = Path(__file__).parents[2]
NEW_MODELS = """
from enum import StrEnum

from sqlalchemy import Column, Integer, Table

from app.models.base import Base
from app.models.types import UtcDateTime, text_enum


class Mood(StrEnum):
    GOOD = "good"


tables = Base.metadata.sorted_tables
kinds = {repr(column.type): column.type for table in tables for column in table.c}
columns = [
    Column(f"c{n}", kinds[kind].copy(), nullable=n % 2 == 0) for n, kind in enumerate(sorted(kinds))
]
Table("every_type", Base.metadata, Column("id", Integer, primary_key=True), *columns)
users = Base.metadata.tables["users"]
users.append_column(Column("seen_at", UtcDateTime(), nullable=True))
users.append_column(Column("mood", text_enum(Mood), nullable=True))
"""


class Copy:
    """A copy of the app in which migrations may be written."""

    def __init__(self, folder: Path, engine: Engine) -> None:
        self.folder = folder
        self.versions = folder / "app" / "migrations" / "versions"
        self._url = engine.url.render_as_string(hide_password=False)
        skipped = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "app", folder / "app", ignore=skipped)
        shutil.copy(ROOT / "pyproject.toml", folder)

    def run(self, *command: str) -> str:
        ended = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=self.folder,
            env={**os.environ, "DATABASE_URL": self._url, "PYTHONPATH": str(self.folder)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def written(self) -> set[str]:
        return {file.name for file in self.versions.glob("*.py")}


@pytest.fixture
def copy(tmp_path: Path, empty_database: Engine) -> Copy:
    made = Copy(tmp_path / "copy", empty_database)
    made.run("app.admin", "database", "upgrade")
    return made


def next_number() -> str:
    return f"{int(schema.newest()) + 1:04d}"


@pytest.mark.timeout(120)
def test_a_migration_with_all_our_types_runs_as_it_is_written(copy: Copy) -> None:
    before = copy.written()
    with (copy.folder / "app" / "models" / "__init__.py").open("a") as models:
        models.write("\nimport app.models.new\n")
    (copy.folder / "app" / "models" / "new.py").write_text(NEW_MODELS)
    copy.run("alembic", "revision", "--autogenerate", "-m", "every type")
    assert copy.written() - before == {f"{next_number()}_every_type.py"}
    copy.run("app.admin", "database", "upgrade")
    again = copy.run("alembic", "revision", "--autogenerate", "-m", "again")
    assert "the models and the database are the same: nothing to write" in again
    assert copy.written() - before == {f"{next_number()}_every_type.py"}
    copy.run("alembic", "downgrade", "-1")


@pytest.mark.timeout(120)
def test_models_that_did_not_change_need_no_migration(copy: Copy) -> None:
    before = copy.written()
    copy.run("alembic", "revision", "--autogenerate", "-m", "nothing")
    assert copy.written() == before


@pytest.mark.timeout(120)
def test_a_migration_written_by_hand_has_the_next_number_or_the_given_one(copy: Copy) -> None:
    before = copy.written()
    copy.run("alembic", "revision", "-m", "by hand")
    copy.run("alembic", "revision", "-m", "named", "--rev-id", "9000")
    assert copy.written() - before == {f"{next_number()}_by_hand.py", "9000_named.py"}
    assert (
        f"down_revision: str | None = {next_number()!r}"
        in (copy.versions / "9000_named.py").read_text()
    )
