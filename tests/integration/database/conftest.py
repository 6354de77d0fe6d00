"""Databases of one's own on the chosen PostgreSQL, for what an emptied one cannot show."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from sqlalchemy import URL

from scripts.live.deployment import Deployment
from scripts.live.job_bench import JobBench, job_bench
from tests.postgres_databases import Databases


@pytest.fixture
def migrated(postgres_databases: Databases) -> Iterator[URL]:
    """A database at the newest schema, for processes of its own."""
    made = postgres_databases.create_migrated()
    yield made
    postgres_databases.drop(made)


@pytest.fixture
def bench(
    broker_url: str,
    migrated: URL,
    tmp_path: Path,
    show_logs: Callable[[Callable[[], Mapping[str, str]]], None],
) -> Iterator[JobBench]:
    """A bench on the chosen Redis and the chosen PostgreSQL."""
    environment = {"DATABASE_URL": migrated.render_as_string(hide_password=False)}
    with Deployment(
        redis_url=broker_url, folder=tmp_path / "live", environment=environment
    ) as deployment:
        show_logs(deployment.logs)
        with job_bench(deployment) as made:
            yield made
