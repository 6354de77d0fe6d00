"""Where kombu puts messages in Redis, and in which order it takes them out."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import redis
from celery import Celery
from kombu import Connection
from kombu.transport.redis import Channel
from redis.client import Pipeline

from app.routing import QUEUES

Send = Callable[..., None]

ANSWER = 30.0  # seconds


@pytest.fixture
def send(app: Celery) -> Send:
    """Publish a message, whose id is the word given."""

    def publish(word: str, *, queue: str = "email", priority: int = 4) -> None:
        app.send_task(
            "facts.task", task_id=word, queue=queue, priority=priority, ignore_result=True
        )

    return publish


@pytest.fixture
def channel(connection: Connection) -> Channel:
    made: Channel = connection.channel()
    return made


def ids(client: redis.Redis, key: str) -> list[str]:
    """The ids of the messages in a list, from its left to its right end."""
    return [json.loads(raw)["headers"]["id"] for raw in client.lrange(key, 0, -1)]


def consume(connection: Connection, app: Celery, count: int) -> list[str]:
    """The ids of the next messages, in the order in which a worker of every queue gets them."""
    taken: list[str] = []

    def on_message(message: Any) -> None:
        taken.append(message.headers["id"])
        message.ack()

    queues = list(app.amqp.queues.values())
    with connection.Consumer(queues, on_message=on_message, prefetch_count=1):
        while len(taken) < count:
            connection.drain_events(timeout=ANSWER)
    return taken


def test_a_queue_has_a_list_for_each_priority_and_the_most_urgent_has_its_bare_name(
    send: Send, client: redis.Redis, channel: Channel
) -> None:
    for priority in range(10):
        send(str(priority), priority=priority)
    keys = [channel._q_for_pri("email", priority) for priority in range(10)]
    assert keys == ["email", *(f"email\x06\x16{priority}" for priority in range(1, 10))]
    assert [ids(client, key) for key in keys] == [[str(priority)] for priority in range(10)]


def test_messages_go_in_at_the_left_and_out_at_the_right(
    send: Send, client: redis.Redis, connection: Connection, app: Celery
) -> None:
    """So LINDEX -1 is the oldest message of a list."""
    for word in ("first", "second", "third"):
        send(word)
    assert ids(client, "email\x06\x164") == ["third", "second", "first"]
    assert consume(connection, app, 3) == ["first", "second", "third"]


def test_the_priority_comes_before_the_queue_and_zero_goes_first(
    send: Send, connection: Connection, app: Celery
) -> None:
    for spec in reversed(QUEUES):
        for priority in (8, 0, 3):
            send(f"{priority} {spec.name}", queue=spec.name, priority=priority)
    taken = consume(connection, app, 3 * len(QUEUES))
    assert [word[0] for word in taken] == [step for step in "038" for _ in QUEUES]


def test_queues_of_one_priority_take_turns(send: Send, connection: Connection, app: Celery) -> None:
    for number in range(4):
        for queue in ("email", "notifications"):
            send(f"{queue} {number}", queue=queue)
    queues = [word.split()[0] for word in consume(connection, app, 8)]
    assert [set(queues[n : n + 2]) for n in range(0, 8, 2)] == [{"email", "notifications"}] * 4


def test_what_is_held_is_kept_by_its_delivery_tag_with_the_message_in_front(
    send: Send, client: redis.Redis, channel: Channel
) -> None:
    send("held", priority=3)
    message = channel.basic_get("email")
    ((tag, value),) = client.hgetall(channel.unacked_key).items()
    body, exchange, routing_key = json.loads(value)
    assert tag.decode() == message.delivery_tag != "held"
    assert (body["headers"]["id"], exchange, routing_key) == ("held", "", "email")
    assert [tag for tag, _ in client.zscan_iter(channel.unacked_index_key)] == [tag]
    message.ack()
    assert client.hlen(channel.unacked_key) == client.zcard(channel.unacked_index_key) == 0


def test_the_channels_qos_knows_what_is_held_by_its_tag(
    send: Send, client: redis.Redis, channel: Channel
) -> None:
    """The lease renews these. They may name what was just acknowledged, hence its XX."""
    send("first")
    send("second")
    first, second = channel.basic_get("email"), channel.basic_get("email")
    assert list(channel.qos._delivered) == [first.delivery_tag, second.delivery_tag]
    first.ack()
    assert second.delivery_tag in channel.qos._delivered
    assert client.hkeys(channel.unacked_key) == [second.delivery_tag.encode()]


def test_a_message_whose_visibility_timeout_is_over_goes_to_the_head(
    send: Send, client: redis.Redis, channel: Channel
) -> None:
    """It is served next, though younger ones wait: the oldest stamp of a list may go back."""
    send("held", priority=3)
    tag = channel.basic_get("email", no_ack=False).delivery_tag
    send("waiting", priority=3)
    client.zadd(channel.unacked_index_key, {tag: 1}, xx=True)
    channel.qos.restore_visible(interval=1)
    assert ids(client, "email\x06\x163") == ["waiting", "held"]
    (restored, _) = reversed(client.lrange("email\x06\x163", 0, -1))
    assert json.loads(restored)["properties"]["delivery_info"]["redelivered"] is True


def test_a_rejected_message_goes_to_the_tail(
    send: Send, client: redis.Redis, channel: Channel
) -> None:
    """So the outbox's tasks never reject(requeue=True): lists would not be in order any more."""
    send("first")
    send("second")
    channel.basic_get("email").reject(requeue=True)
    assert ids(client, "email\x06\x164") == ["first", "second"]


def test_a_message_of_a_renewed_lease_is_not_taken_back(
    send: Send, client: redis.Redis, channel: Channel
) -> None:
    send("held")
    tag = channel.basic_get("email").delivery_tag
    client.zadd(channel.unacked_index_key, {tag: 1}, xx=True)
    client.zadd(channel.unacked_index_key, {tag: client.time()[0], "gone": 1}, xx=True)
    channel.qos.restore_visible(interval=1)
    assert ids(client, "email\x06\x164") == []
    assert client.zscore(channel.unacked_index_key, "gone") is None


def test_a_batch_goes_out_in_one_pipeline_when_it_is_closed(
    app: Celery, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipelines: list[int] = []
    execute = Pipeline.execute

    def counting(self: Pipeline, *args: Any, **options: Any) -> Any:
        pipelines.append(len(self.command_stack))
        return execute(self, *args, **options)

    def send_all(words: Sequence[str]) -> None:
        size = len(words) + 1
        with app.producer_pool.acquire(block=True) as producer, producer.batch(max_size=size):
            for word in words:
                app.send_task("facts.task", task_id=word, producer=producer, ignore_result=True)
            assert client.llen("celery\x06\x164") == 0

    send_all(["declares the queue"])
    client.flushdb()
    monkeypatch.setattr(Pipeline, "execute", counting)
    words = [str(number) for number in range(50)]
    send_all(words)
    assert pipelines == [50]
    assert ids(client, "celery\x06\x164") == words[::-1]
