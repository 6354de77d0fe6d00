"""What the outbox asks of a broker, asked of a real Redis."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any

import pytest
import redis
from celery import Celery

from app.outbox import DUE_INSTANT_HEADER, BrokerUnavailableError
from app.outbox.broker import NoStamp, OutboxMessage, QueueDepth
from app.routing import QUEUES
from app.tasks.broker import RedisBroker
from scripts.live.redis_server import RedisServer
from tests.taskless_app import taskless_app

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
TIMEOUT_SECONDS = 1.0
TOO_DEEP = b"[" * 10_000 + b"]" * 10_000
"""For Python's reader of JSON."""


@pytest.fixture
def app(broker_url: str) -> Iterator[Celery]:
    made = taskless_app(broker_url)
    yield made
    made.close()


@pytest.fixture
def broker(app: Celery) -> RedisBroker:
    return RedisBroker(app, timeout=TIMEOUT_SECONDS)


def message(number: int, *, queue: str = "email", priority: int = 4) -> OutboxMessage:
    published_at = NOON + timedelta(seconds=number)
    return OutboxMessage(
        f"id-{number}", "app.tasks.x.y", [number], {}, queue, priority, 0, published_at
    )


def test_now_is_the_servers_clock(broker: RedisBroker, broker_url: str) -> None:
    with redis.Redis.from_url(broker_url) as client:
        seconds, _ = client.time()
    assert abs(broker.now().timestamp() - seconds) < 5


def test_the_oldest_message_of_each_list_tells_its_stamp(broker: RedisBroker) -> None:
    broker.push([message(1), message(2), message(3, priority=0)])
    lists = [("email", 4), ("email", 0), ("email", 5), ("bookings", 2)]
    assert broker.oldest(lists) == [
        NOON + timedelta(seconds=1),
        NOON + timedelta(seconds=3),
        NoStamp.EMPTY,
        NoStamp.EMPTY,
    ]


def test_a_message_of_somebody_else_tells_nothing(broker: RedisBroker, app: Celery) -> None:
    app.send_task("app.tasks.email.deliver", queue="email", priority=4, ignore_result=True)
    broker.push([message(1)])
    assert broker.oldest([("email", 4)]) == [NoStamp.FOREIGN]


def test_a_message_carries_the_due_instant_to_its_task(broker: RedisBroker, app: Celery) -> None:
    broker.push([replace(message(1), due_instant=NOON)])
    with app.connection_for_read() as connection:
        received = connection.default_channel.basic_get("email", no_ack=True)
    assert received.headers[DUE_INSTANT_HEADER] == NOON.isoformat()


@pytest.mark.parametrize("item", [b"not json", TOO_DEEP], ids=["not JSON", "too deep"])
def test_what_is_no_message_at_all_tells_nothing(
    item: bytes, broker: RedisBroker, broker_url: str
) -> None:
    broker.push([message(1)])
    with redis.Redis.from_url(broker_url) as client:
        (key,) = client.keys("email*")
        client.rpush(key, item)
    assert broker.oldest([("email", 4)]) == [NoStamp.FOREIGN]


def test_the_depth_of_a_queue_is_the_sum_over_its_urgencies(broker: RedisBroker) -> None:
    broker.push([message(3, priority=9), message(1), message(2), message(4, queue="bookings")])
    assert broker.depths(["email", "bookings", "cache"]) == {
        "email": QueueDepth(waiting=3, oldest=NOON + timedelta(seconds=1)),
        "bookings": QueueDepth(waiting=1, oldest=NOON + timedelta(seconds=4)),
        "cache": QueueDepth(waiting=0, oldest=None),
    }


def test_the_depth_counts_somebody_elses_message_and_tells_no_age_of_it(
    broker: RedisBroker, app: Celery
) -> None:
    app.send_task("app.tasks.email.deliver", queue="email", priority=4, ignore_result=True)
    assert broker.depths(["email"]) == {"email": QueueDepth(waiting=1, oldest=None)}


def test_the_depths_of_all_queues_are_one_round_trip(
    broker: RedisBroker, round_trips: Callable[[], int]
) -> None:
    broker.now()
    before = round_trips()
    broker.depths([spec.name for spec in QUEUES])
    assert round_trips() - before == 1


def test_held_are_the_ids_that_a_consumer_has_not_acknowledged(
    broker: RedisBroker, app: Celery
) -> None:
    broker.push([message(1), message(2)])
    assert broker.held() == set()
    with app.connection_for_read() as connection, connection.channel() as channel:
        taken = channel.basic_get("email")
        assert broker.held() == {"id-1"}
        taken.ack()
        assert broker.held() == set()


def test_what_is_no_message_is_held_by_nobody(broker: RedisBroker, broker_url: str) -> None:
    broker.now()
    with redis.Redis.from_url(broker_url) as client:
        values = (b"not json", TOO_DEEP, b"[{}]", b"[]", b'[{"headers": {"id": 7}}]')
        for number, value in enumerate(values):
            client.hset("unacked", f"tag-{number}", value)
    assert broker.held() == set()


@pytest.fixture
def taken(broker: RedisBroker, app: Celery) -> Iterator[Any]:
    """A message that a consumer has taken and not acknowledged."""
    broker.push([message(1)])
    with app.connection_for_read() as connection, connection.channel() as channel:
        held = channel.basic_get("email")
        yield held
        held.ack()


def test_a_message_without_a_lease_is_not_held(
    broker: RedisBroker, taken: Any, broker_url: str
) -> None:
    """Nobody renews it and nobody gives it back: its worker is dead, or never was."""
    with redis.Redis.from_url(broker_url) as client:
        client.delete("unacked_index")
    assert broker.held() == set()


@pytest.mark.parametrize(
    ("seconds", "is_held"),
    [(0, True), (-39, True), (-41, False), (9, True), (11, False), (86_400, False)],
)
def test_a_message_is_held_while_its_lease_is_within_the_visibility_timeout(
    broker: RedisBroker, taken: Any, broker_url: str, seconds: int, is_held: bool
) -> None:
    """Of 30 s and a third of it, by which the workers' clocks may differ from Redis's."""
    with redis.Redis.from_url(broker_url) as client:
        score = client.time()[0] + seconds
        client.zadd("unacked_index", {taken.delivery_tag: score})
        assert broker.held() == ({"id-1"} if is_held else set())


def test_renewing_moves_a_lease_to_the_brokers_present_instant(
    broker: RedisBroker, taken: Any, broker_url: str
) -> None:
    with redis.Redis.from_url(broker_url) as client:
        client.zadd("unacked_index", {taken.delivery_tag: 0})
        before = broker.now().timestamp()
        broker.renew([taken.delivery_tag, "acknowledged-long-ago"])
        ((tag, score),) = client.zrange("unacked_index", 0, -1, withscores=True)
    assert tag == taken.delivery_tag.encode()
    assert before <= score <= broker.now().timestamp()


def test_renewing_gives_a_lost_lease_back(broker: RedisBroker, taken: Any, broker_url: str) -> None:
    with redis.Redis.from_url(broker_url) as client:
        client.delete("unacked_index")
    broker.renew([taken.delivery_tag])
    assert broker.held() == {"id-1"}


def test_many_messages_go_out_in_one_round_trip(
    broker: RedisBroker, round_trips: Callable[[], int]
) -> None:
    broker.push([message(0)])
    before = round_trips()
    broker.push([message(number) for number in range(100)])
    assert round_trips() - before == 1


def test_a_stopped_redis_is_unavailable_at_once(own_redis: RedisServer) -> None:
    broker = RedisBroker(taskless_app(own_redis.url), timeout=TIMEOUT_SECONDS)
    broker.now()
    own_redis.stop()
    started = monotonic()
    with pytest.raises(BrokerUnavailableError):
        broker.now()
    with pytest.raises(BrokerUnavailableError):
        broker.push([message(1)])
    assert monotonic() - started < 4 * TIMEOUT_SECONDS
    own_redis.start()
    assert broker.now().tzinfo is UTC


def test_a_hung_redis_is_unavailable_after_the_timeout(own_redis: RedisServer) -> None:
    broker = RedisBroker(taskless_app(own_redis.url), timeout=TIMEOUT_SECONDS)
    broker.now()
    own_redis.pause()
    started = monotonic()
    try:
        with pytest.raises(BrokerUnavailableError):
            broker.push([message(1)])
    finally:
        own_redis.resume()
    assert monotonic() - started < 4 * TIMEOUT_SECONDS


def test_its_memory_is_what_redis_says(own_redis: RedisServer) -> None:
    broker = RedisBroker(taskless_app(own_redis.url), timeout=TIMEOUT_SECONDS)
    unlimited = broker.memory()
    with own_redis.client() as client:
        client.config_set("maxmemory", "100mb")
    limited = broker.memory()
    broker.close()
    assert unlimited.limit_bytes is None
    assert limited.limit_bytes == 100 * 1024 * 1024
    assert 0 < limited.used_bytes < limited.limit_bytes


def test_a_purge_removes_the_messages_of_all_ten_lists_and_of_no_other_queue(
    broker: RedisBroker, broker_url: str
) -> None:
    broker.push([message(number, priority=number) for number in range(10)])
    broker.push([message(11, queue="bookings", priority=2)])
    with redis.Redis.from_url(broker_url) as client:
        client.lpush("email", b"a message of somebody else's")
        assert broker.purge("email") == 11
        assert list(client.scan_iter("email*")) == []
        assert broker.depths(["bookings"])["bookings"].waiting == 1
    assert broker.purge("email") == 0
