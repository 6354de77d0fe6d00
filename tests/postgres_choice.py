"""Which PostgreSQL the tests talk to: a container, a server process of our own, or a URL."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import NoReturn

import pytest
from sqlalchemy import URL, make_url

from scripts.live.postgres_server import WITHOUT_SAFETY, PostgresServer, find_programs
from tests.service_choice import Service, running

POSTGRES = Service("--postgres", "POSTGRES_IMAGE", "postgres:16-alpine", find_programs)
DRIVER = "postgresql+psycopg"


def pytest_addoption(parser: pytest.Parser) -> None:
    POSTGRES.add_option(
        parser,
        "the PostgreSQL of integration tests: a container, a server process of our own, or a"
        " server somewhere: the URL of one of its databases, which is left alone, and a user who"
        " may create others.",
    )


def pytest_report_collectionfinish(config: pytest.Config, items: list[pytest.Item]) -> list[str]:
    """Say which PostgreSQL this run will use, if any of its tests uses one."""
    if not any(_uses_postgres(item) for item in items):
        return []
    choice = POSTGRES.chosen(config)
    if choice.kind == "url":
        return [f"postgres: url {make_url(choice.where).render_as_string(hide_password=True)}"]
    return [f"postgres: {choice}"]


def _uses_postgres(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    by_parameter = callspec is not None and "postgresql" in map(str, callspec.params.values())
    return by_parameter or "postgres_url" in getattr(item, "fixturenames", ())


@pytest.fixture(scope="session")
def postgres_url(
    pytestconfig: pytest.Config, missing_service: Callable[[str], NoReturn]
) -> Iterator[URL]:
    """A way to the chosen server, for the whole run, as a user who may create databases."""
    choice = POSTGRES.chosen(pytestconfig)
    if choice.kind == "missing":
        missing_service(f"no PostgreSQL {choice.where}")
    elif choice.kind == "container":
        with postgres_in_a_container(choice.where) as url:
            yield url
    elif choice.kind == "embedded":
        with PostgresServer() as server:
            yield server.url
    else:
        yield make_url(choice.where).set(drivername=DRIVER)


@contextmanager
def postgres_in_a_container(image: str) -> Generator[URL]:
    from testcontainers.community.postgres import PostgresContainer

    user, password = "postgres", secrets.token_hex(16)
    options = " ".join(f"-c {option}" for option in WITHOUT_SAFETY)

    def make() -> PostgresContainer:
        container = PostgresContainer(image, username=user, password=password, dbname=user)
        return container.with_env("POSTGRES_INITDB_ARGS", "--no-sync").with_command(
            f"postgres {options}"
        )

    with running(make, 5432) as (host, port):
        yield URL.create(DRIVER, user, password, host, port, user)
