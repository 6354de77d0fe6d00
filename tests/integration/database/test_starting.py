"""Worker, beat and commands on PostgreSQL, whose schema a person upgrades."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from app import schema
from scripts.live.deployment import Deployment
from tests.integration.starting.shell import Shell

UPGRADE = "python -m app.admin database upgrade"

pytestmark = pytest.mark.parametrize("empty_database", ["postgresql"], indirect=True)


@pytest.fixture
def shell(broker_url: str, empty_database: Engine, tmp_path: Path) -> Iterator[Shell]:
    """Lines typed into a deployment on a database without a schema."""
    url = empty_database.url.render_as_string(hide_password=False)
    environment = {"DATABASE_URL": url}
    with Deployment(
        redis_url=broker_url, folder=tmp_path / "live", environment=environment
    ) as live:
        yield Shell(live)


def test_a_worker_and_a_beat_refuse_a_database_that_is_behind_and_say_what_to_run(
    shell: Shell, empty_database: Engine
) -> None:
    refused = shell.together(
        "celery -A app.tasks worker --loglevel=info", "celery -A app.tasks beat --loglevel=info"
    )
    assert [ended.returncode for ended in refused] == [2, 2]
    for ended in refused:
        (line,) = (line for line in ended.stderr.splitlines() if "DATABASE_URL" in line)
        assert f" has no schema, this code needs {schema.newest()}: run {UPGRADE}" in line
        assert str(empty_database.url.password) not in ended.stdout + ended.stderr
    assert schema.current_of(empty_database) is None


def test_the_command_they_name_makes_the_schema_and_says_so(shell: Shell) -> None:
    assert "now at revision" in shell.answer(UPGRADE)
    assert "the newest" in shell.answer("python -m app.admin database check")
