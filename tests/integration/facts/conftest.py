from collections.abc import Iterator

import pytest
import redis
from celery import Celery
from kombu import Connection

from app.settings import Settings
from app.tasks.celery_config import config


def app_on(url: str) -> Celery:
    """A Celery app with this project's configuration and none of its tasks, on a given Redis."""
    app = Celery("facts", set_as_current=False)
    app.conf.update(config(Settings()), broker_url=url, result_backend=url, include=[])
    return app


@pytest.fixture
def app(broker_url: str) -> Iterator[Celery]:
    made = app_on(broker_url)
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
