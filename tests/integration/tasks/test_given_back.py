"""Where a message goes that a worker gives back in an outage of its database."""

from collections.abc import Iterator
from typing import Any

import pytest
from kombu import Connection

from app.outbox import PUBLISHED_AT_HEADER
from app.tasks.outage import Outage, give_back

OURS = {PUBLISHED_AT_HEADER: "2026-07-01T12:00:00+00:00", "id": "one", "task": "a.task"}


class Queue:
    """One queue of a channel on a real Redis."""

    NAME = "given-back"

    def __init__(self, connection: Connection) -> None:
        self.simple = connection.SimpleQueue(self.NAME)
        self.channel: Any = self.simple.channel

    def put(self, body: str, headers: dict[str, Any]) -> None:
        self.simple.put(body, headers=headers)

    def take(self) -> Any:
        return self.simple.get(timeout=5)


@pytest.fixture
def queue(broker_url: str) -> Iterator[Queue]:
    with Connection(broker_url) as connection:
        made = Queue(connection)
        yield made
        made.simple.clear()


def test_a_message_that_is_given_back_is_the_next_to_be_taken(queue: Queue) -> None:
    for body in ("first", "second"):
        queue.put(body, OURS)
    taken = queue.take()
    give_back(queue.channel, taken.delivery_tag)
    again = queue.take()
    assert again.payload == "first"
    assert queue.take().payload == "second"


def test_a_message_that_was_given_back_does_not_count_as_redelivered(queue: Queue) -> None:
    queue.put("work", OURS)
    queue.channel.qos.restore_by_tag(queue.take().delivery_tag)  # its worker was killed
    taken = queue.take()
    assert taken.delivery_info["redelivered"]
    give_back(queue.channel, taken.delivery_tag)
    again = queue.take()
    assert "redelivered" not in again.delivery_info
    queue.channel.qos.restore_by_tag(again.delivery_tag)  # another one was killed
    assert queue.take().delivery_info["redelivered"], "what kills its workers still ends"


@pytest.mark.parametrize("headers", [{}, {"id": "foreign"}], ids=str)
def test_a_message_that_came_past_the_outbox_keeps_its_mark(
    queue: Queue, headers: dict[str, Any]
) -> None:
    queue.put("foreign", headers)
    queue.channel.qos.restore_by_tag(queue.take().delivery_tag)
    give_back(queue.channel, queue.take().delivery_tag)
    assert queue.take().delivery_info["redelivered"]


def test_a_message_that_came_past_the_outbox_lets_the_others_go_first(queue: Queue) -> None:
    """The row of its task may be locked for minutes."""
    for body in ("locked", "other"):
        queue.put(body, {})
    give_back(queue.channel, queue.take().delivery_tag)
    assert [queue.take().payload, queue.take().payload] == ["other", "locked"]


def test_what_is_no_longer_held_is_not_given_back(queue: Queue) -> None:
    queue.put("work", OURS)
    taken = queue.take()
    taken.ack()
    give_back(queue.channel, taken.delivery_tag)
    assert queue.channel._size(queue.NAME) == 0


def test_a_channel_takes_nothing_in_an_outage_and_has_its_credit_again_after_it(
    queue: Queue,
) -> None:
    outage = Outage()
    outage.keep_from_taking(queue.channel)
    queue.put("work", OURS)
    taken = queue.take()
    outage.begin("away")
    assert not queue.channel.qos.can_consume()
    taken.reject(requeue=True)
    assert queue.simple.qsize() == 1
    outage.end()
    assert queue.channel.qos.can_consume()
    assert queue.take().payload == "work"
