"""Which Redis the tests talk to: a container, a server process of our own, or a URL."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import NoReturn

import pytest
import redis

from scripts.live.redis_server import RedisServer, find_server
from tests.service_choice import Service, running

REDIS = Service("--redis", "REDIS_IMAGE", "redis:7-alpine", find_server)


def pytest_addoption(parser: pytest.Parser) -> None:
    REDIS.add_option(
        parser,
        "the Redis of integration tests: a container, a server process of our own, or an"
        " empty database somewhere (it is flushed).",
    )


def pytest_report_collectionfinish(config: pytest.Config, items: list[pytest.Item]) -> list[str]:
    """Say which Redis this run will use, if any of its tests uses one."""
    if not any("redis_url" in getattr(item, "fixturenames", ()) for item in items):
        return []
    return [f"redis: {REDIS.chosen(config)}"]


@pytest.fixture(scope="session")
def redis_url(
    pytestconfig: pytest.Config, missing_service: Callable[[str], NoReturn]
) -> Iterator[str]:
    """The URL of the chosen Redis, for the whole run. Most tests want ``broker_url``."""
    choice = REDIS.chosen(pytestconfig)
    if choice.kind == "missing":
        missing_service(f"no Redis {choice.where}")
    elif choice.kind == "container":
        with redis_in_a_container(choice.where) as url:
            yield url
    elif choice.kind == "embedded":
        with RedisServer() as server:
            yield server.url
    else:
        with redis.Redis.from_url(choice.where) as client:
            if client.dbsize():  # somebody's: each test empties its database
                pytest.exit(f"{choice.where} is not empty; name an empty database", 4)
        yield choice.where


@contextmanager
def redis_in_a_container(image: str) -> Generator[str]:
    from testcontainers.community.redis import RedisContainer

    with running(lambda: RedisContainer(image), 6379) as (host, port):
        yield f"redis://{host}:{port}/0"


@pytest.fixture(scope="session")
def _databases(pytestconfig: pytest.Config, redis_url: str) -> Iterator[str]:
    """URLs of databases in turn, so that a straggler of one test does not write into the next."""
    if REDIS.chosen(pytestconfig).kind == "url":
        return itertools.repeat(redis_url)
    return itertools.cycle(f"{redis_url.removesuffix('/0')}/{number}" for number in range(16))


@pytest.fixture
def broker_url(_databases: Iterator[str]) -> Iterator[str]:
    """The URL of an empty Redis database for this test."""
    with _empty_database(next(_databases)) as url:
        yield url


@pytest.fixture(scope="module")
def module_broker_url(_databases: Iterator[str]) -> Iterator[str]:
    """The URL of an empty Redis database for all tests of a module, none of which may ask
    for ``broker_url``: on a Redis given by its URL the two are one database."""
    with _empty_database(next(_databases)) as url:
        yield url


@contextmanager
def _empty_database(url: str) -> Generator[str]:
    with redis.Redis.from_url(url) as client:
        client.flushdb()
        yield url
        client.flushdb()
