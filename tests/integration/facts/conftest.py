from collections.abc import Iterator

import pytest
import redis
from celery import Celery
from kombu import Connection

from tests.taskless_app import taskless_app


@pytest.fixture
def app(broker_url: str) -> Iterator[Celery]:
    made = taskless_app(broker_url)
    yield made
    made.close()


@pytest.fixture
def connection(app: Celery) -> Iterator[Connection]:
    with app.connection_for_read() as opened:
        yield opened


@pytest.fixture
def client(broker_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(broker_url) as opened:
        yield opened
