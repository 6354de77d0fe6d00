"""Which items of a queue's list kombu can make messages of."""

import gzip
import json
from typing import Any

import pytest
import redis
from kombu.transport.redis import Channel

from app.domain.nesting import DEEPEST
from app.outbox import PUBLISHED_AT_HEADER
from app.tasks import envelopes
from app.tasks.messages import NO_TASK, FaultyMessageError

SECRET = "ann.lee"


def an_item(*, headers: Any = None, properties: Any = None, **changed: Any) -> bytes:
    """As kombu writes it, apart from what is given."""
    made = {
        "body": "W1tdLCB7fSwge31d",
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"task": "some.task", "id": "some-id", **(headers or {})},
        "properties": {
            "delivery_tag": "a tag",
            "delivery_info": {"exchange": "", "routing_key": "celery"},
            "priority": 0,
            "body_encoding": "base64",
            **(properties or {}),
        },
        **changed,
    }
    return json.dumps(made).encode()


def nested(depth: int) -> Any:
    value: Any = SECRET
    for _ in range(depth):
        value = [value]
    return value


FAULTY = {
    "rubbish": SECRET.encode(),
    "not UTF-8": b"\xff",
    "a list": b"[]",
    "deeper than Python reads": b"[" * 100_000 + b"]" * 100_000,
    "deeper than we take": an_item(headers={"x": nested(DEEPEST)}),
    "too large": an_item(headers={"x": "y" * envelopes.LARGEST_ITEM}),
    "compressed": an_item(headers={"compression": "application/x-gzip"}),
    "no delivery tag": an_item(properties={"delivery_tag": None}),
    "no queue": an_item(properties={"delivery_info": {"exchange": ""}}),
    "a priority that kombu cannot compare": an_item(properties={"priority": float("inf")}),
    "a body that is not Base64": an_item(body="x"),
    "a body beyond ASCII": an_item(body="\ud800"),
    "a body of an encoding that kombu does not know": an_item(properties={"body_encoding": "x"}),
}

SOUND = {
    "kombu's own": an_item(),
    "an empty body": an_item(body=""),
    "a body as it is": an_item(body="[[[[", properties={"body_encoding": None}),
    "many brackets, and nothing deep": an_item(headers={"x": [[]] * 2 * DEEPEST}),
    "no headers": json.dumps({**json.loads(an_item()), "headers": None}).encode(),
    "no priority": an_item(properties={"priority": None}),
    "as deep as may be": an_item(headers={"x": nested(DEEPEST - 2)}),
}


@pytest.mark.parametrize("item", FAULTY.values(), ids=FAULTY)
def test_an_item_with_which_kombu_would_fail_is_faulty_and_not_quoted(item: bytes) -> None:
    with pytest.raises(FaultyMessageError) as caught:
        envelopes.check(item)
    assert SECRET not in str(caught.value)
    delivery = envelopes.delivery_of(item)
    assert delivery.kwargs == {"unreadable_body": f"an item of {len(item):,} bytes"}
    assert SECRET not in str(delivery)


@pytest.mark.parametrize("item", SOUND.values(), ids=SOUND)
def test_what_kombu_reads_is_sound(item: bytes) -> None:
    envelopes.check(item)


def test_a_bomb_is_refused_before_it_is_decompressed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gzip, "decompress", lambda *_: pytest.fail("it was decompressed"))
    with pytest.raises(FaultyMessageError, match="it is compressed"):
        envelopes.check(an_item(headers={"compression": "application/x-gzip"}))


def test_a_faulty_item_that_tells_its_entry_is_that_entrys() -> None:
    stamped = an_item(headers={PUBLISHED_AT_HEADER: "x"}, properties={"delivery_tag": None})
    assert envelopes.delivery_of(stamped).id == "some-id"
    assert envelopes.delivery_of(stamped).from_outbox
    nameless = an_item(headers={PUBLISHED_AT_HEADER: "x", "id": None})
    assert not envelopes.delivery_of(nameless).from_outbox
    assert envelopes.delivery_of(b"rubbish").task == NO_TASK


def test_a_client_hands_over_what_is_sound_and_has_the_rest_refused() -> None:
    client, refused = redis.Redis(), list[bytes]()
    envelopes.refuse_faulty_items(client, lambda item, why: refused.append(item))
    read: Any = client.response_callbacks["BRPOP"]
    assert read([b"celery", an_item()]) == (b"celery", an_item())
    assert read([b"celery", b"rubbish"]) is None
    assert read(None) is None
    assert refused == [b"rubbish"]


def test_kombu_hears_broadcasts_where_ours_listens() -> None:
    """Both methods are kombu's own; without one of them nothing would be checked."""
    ours = envelopes.forgiving(Channel)
    assert {"_receive_one", "_deliver_fanout_message"} <= vars(Channel).keys() & vars(ours).keys()


def test_an_item_with_too_large_a_body_says_which_entry_it_is() -> None:
    """Otherwise each republication of the entry would make a dead letter of its own."""
    stamp = {PUBLISHED_AT_HEADER: "2026-07-01T12:00:00+00:00"}
    item = an_item(body="QUJD" * (envelopes.LARGEST_ITEM // 4), headers=stamp)
    with pytest.raises(FaultyMessageError):
        envelopes.check(item)
    delivery = envelopes.delivery_of(item)
    assert (delivery.id, delivery.task, delivery.from_outbox) == ("some-id", "some.task", True)


def test_an_item_that_is_too_large_elsewhere_says_nothing_of_itself() -> None:
    item = an_item(headers={"x": "y" * envelopes.LARGEST_ITEM})
    delivery = envelopes.delivery_of(item)
    assert (delivery.task, delivery.from_outbox) == (NO_TASK, False)
