"""A channel's client is made once for each pool."""

from types import SimpleNamespace
from typing import Any

import pytest
from kombu.transport.redis import Channel
from redis import ConnectionPool, Redis

from app.tasks.redis_clients import keep_client


class Unconnected(Channel):
    """kombu's, without its connection."""

    def __init__(self) -> None:
        self.made: list[Redis] = []
        self._pool = ConnectionPool()
        self._async_pool = ConnectionPool()

    def Client(self, **options: Any) -> Redis:
        client = Redis(**options)
        self.made.append(client)
        return client


@pytest.fixture
def channel() -> Unconnected:
    made = Unconnected()
    keep_client(made)
    return made


def test_the_second_pipeline_uses_the_client_of_the_first(channel: Unconnected) -> None:
    assert channel._create_client() is channel._create_client()
    assert len(channel.made) == 1


def test_a_pool_that_was_replaced_gets_a_new_client(channel: Unconnected) -> None:
    before = channel._create_client()
    channel._pool = ConnectionPool()
    after = channel._create_client()
    assert after is not before
    assert after.connection_pool is channel.pool


def test_the_client_that_waits_for_messages_is_one_of_its_own(channel: Unconnected) -> None:
    kept = channel._create_client()
    waiting = channel._create_client(asynchronous=True)
    assert waiting is not kept
    assert channel._create_client() is kept


def test_a_channel_is_changed_once(channel: Unconnected) -> None:
    once = channel._create_client
    keep_client(channel)
    assert channel._create_client is once


class OfItsOwn(Unconnected):
    def _create_client(self, asynchronous: bool = False) -> Any:
        return "the one that there is"


@pytest.mark.parametrize("other", [SimpleNamespace(), OfItsOwn()])
def test_another_channel_is_left_alone(other: Any) -> None:
    before = dict(vars(other))
    keep_client(other)
    assert vars(other) == before
