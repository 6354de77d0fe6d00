"""What a publisher of Celery's meets: a Redis that is away or hangs, and the price of a result."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Any

import pytest
import redis
from celery import Celery
from kombu.exceptions import OperationalError

from scripts.live.redis_server import RedisServer
from tests.taskless_app import taskless_app

TIMEOUT = 1.0  # seconds
GENEROUS = 8.0  # seconds; a test that took the kernel's time-outs would take minutes


@contextmanager
def impatient_app(url: str) -> Iterator[Celery]:
    app = taskless_app(url)
    options = {"socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT, "max_retries": 0}
    app.conf.broker_transport_options = {**app.conf.broker_transport_options, **options}
    yield app
    app.close()


def send(app: Celery, **options: Any) -> Any:
    return app.send_task("facts.task", retry=False, **options)


def test_publishing_with_redis_down_raises_operational_error_soon(own_redis: RedisServer) -> None:
    with impatient_app(own_redis.url) as app:
        send(app, ignore_result=True)
        own_redis.stop()
        started = monotonic()
        with pytest.raises(OperationalError):
            send(app, ignore_result=True)
        assert monotonic() - started < GENEROUS


def test_publishing_to_a_hung_redis_raises_operational_error_after_the_socket_timeout(
    own_redis: RedisServer,
) -> None:
    with impatient_app(own_redis.url) as app:
        send(app, ignore_result=True)
        own_redis.pause()
        try:
            started = monotonic()
            with pytest.raises(OperationalError):
                send(app, ignore_result=True)
            assert TIMEOUT <= monotonic() - started < GENEROUS
        finally:
            own_redis.resume()


def test_a_publish_that_raised_may_have_been_delivered(own_redis: RedisServer) -> None:
    """So a failed push unpublishes the entry and lets the guard sort out the copy."""
    with impatient_app(own_redis.url) as app, own_redis.client() as client:
        send(app, ignore_result=True)
        client.flushdb()
        own_redis.pause()
        try:
            with pytest.raises(OperationalError):
                send(app, ignore_result=True)
        finally:
            own_redis.resume()
        deadline = monotonic() + 10
        while not client.llen("celery\x06\x164"):
            assert monotonic() < deadline, "it was not delivered after all"
            sleep(0.05)


def test_only_a_publish_with_a_result_subscribes_to_it(app: Celery, client: redis.Redis) -> None:
    """A subscription costs a connection, and blocks where the backend is away."""
    send(app, ignore_result=True)
    assert client.pubsub_channels() == []
    wanted = send(app)
    assert client.pubsub_channels() == [f"celery-task-meta-{wanted.id}".encode()]
    wanted.forget()
