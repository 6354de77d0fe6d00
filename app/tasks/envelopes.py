"""What a worker can tell of an item in a queue's list before kombu makes a message of it.

kombu believes what it reads: an item that is none of its own raises in the worker's event
loop and ends it, and a compressed one is decompressed at once, however large it becomes.
"""

import base64
import logging
import re
from collections.abc import Callable, Mapping
from queue import Empty
from typing import Any

from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps, loads
from redis import Redis

from app import clock, entropy
from app.domain.nesting import is_nested_too_deep
from app.outbox import PUBLISHED_AT_HEADER
from app.outbox.guard import Delivery
from app.outbox.ids import uuid7
from app.tasks.messages import (
    LONGEST_NAME,
    NO_TASK,
    FaultyMessageError,
    name_or_none,
)

logger = logging.getLogger(__name__)

LARGEST_ITEM = 16 * 1024 * 1024
"""Bytes. As Python objects, they may take ten times as many."""

_BODY = re.compile(rb'^\{\s*"body":\s*"[A-Za-z0-9+/=]*"\s*,')
"""An item's beginning as kombu writes it: the body in Base64, then what names its task."""


def refuse_faulty_items(client: Redis, refuse: Callable[[bytes, str], None]) -> None:
    """Let ``client`` hand over only items of which kombu can make messages.

    Of any other, ``refuse`` gets its bytes and what is wrong with it. It is in no list any
    more then, and nobody else will see it.
    """
    callbacks: Any = client.response_callbacks
    read = callbacks.get("BRPOP", lambda answer, **options: answer)

    def only_sound(answer: Any, **options: Any) -> Any:
        popped = read(answer, **options)
        if popped is None:
            return None
        try:
            check(popped[1])
        except FaultyMessageError as error:
            refuse(popped[1], str(error))
            return None  # as if the wait had ended without a message
        return popped

    client.set_response_callback("BRPOP", only_sound)


def forgiving(channel_class: type[Any]) -> type[Any]:
    """``channel_class``, kombu's for Redis, which leaves faulty broadcasts alone.

    Workers hear them (remote control, other workers' events) and acknowledge none, so what
    fails here is of no use to anybody: it is logged, and gone.
    """

    class Forgiving(channel_class):  # type: ignore[misc]
        def _receive_one(self, client: Any) -> Any:
            try:
                return super()._receive_one(client)
            except (Empty, *self.connection_errors):
                raise
            except FaultyMessageError as error:
                logger.error("ignored a broadcast: %s", error)
            except Exception as error:  # its text may quote the message
                logger.error("ignored a broadcast: %s", type(error).__name__)
            return False

        def _deliver_fanout_message(self, message: Any, exchange: str) -> Any:
            check(dumps(message).encode())
            return super()._deliver_fanout_message(message, exchange)

    return Forgiving


def check(item: bytes) -> None:
    """Raise ``FaultyMessageError`` where kombu would fail with the item, or with its return."""
    if len(item) > LARGEST_ITEM:
        raise FaultyMessageError(f"it is larger than {LARGEST_ITEM:,} bytes: {_shown(item)}")
    envelope = _parsed(item)
    if not isinstance(envelope, Mapping):
        raise FaultyMessageError(f"it is no message of kombu: {_shown(item)}")
    if is_nested_too_deep(envelope, brackets=item.count(b"[") + item.count(b"{")):
        raise FaultyMessageError(f"it is nested too deep: {_shown(item)}")
    headers, properties = envelope.get("headers"), envelope.get("properties")
    if not isinstance(headers, Mapping | None):
        raise FaultyMessageError(f"its headers are no object: {_shown(item)}")
    if headers and headers.get("compression"):
        # Nobody can tell how large it becomes, and our own publishers compress nothing.
        raise FaultyMessageError(f"it is compressed: {_shown(item)}")
    if not isinstance(properties, Mapping):
        raise FaultyMessageError(f"its properties are no object: {_shown(item)}")
    if name_or_none(properties.get("delivery_tag")) is None:
        raise FaultyMessageError(
            f"its delivery tag is no text of 1 to {LONGEST_NAME} signs: {_shown(item)}"
        )
    info = properties.get("delivery_info")
    if not isinstance(info, Mapping) or not all(
        isinstance(info.get(name), str) for name in ("exchange", "routing_key")
    ):
        raise FaultyMessageError(f"it does not say for which queue it is: {_shown(item)}")
    if not isinstance(properties.get("priority"), int | None):
        raise FaultyMessageError(f"its priority is no whole number: {_shown(item)}")
    if not _is_body(envelope.get("body"), properties.get("body_encoding")):
        raise FaultyMessageError(f"its body is not encoded as it says: {_shown(item)}")


def delivery_of(item: bytes) -> Delivery:
    """The item as its dead letter is to have it: whose it is, if it tells, and how large."""
    without_body = _BODY.sub(b"{", item, count=1) if len(item) > LARGEST_ITEM else item
    envelope = _parsed(without_body) if len(without_body) <= LARGEST_ITEM else None
    headers = envelope.get("headers") if isinstance(envelope, Mapping) else None
    if not isinstance(headers, Mapping):
        headers = {}
    message_id = name_or_none(headers.get("id"))
    return Delivery(
        id=message_id or uuid7(clock.utcnow(), entropy.rng()),
        task=name_or_none(headers.get("task")) or NO_TASK,
        kwargs={"unreadable_body": _shown(item)},
        from_outbox=message_id is not None and PUBLISHED_AT_HEADER in headers,
    )


def _parsed(item: bytes) -> Any:
    try:
        return loads(bytes_to_str(item))
    except Exception:  # also what kombu's marks of types raise
        return None


def _is_body(body: Any, encoding: Any) -> bool:
    if not body:
        return True  # kombu decodes no empty one
    if not isinstance(body, str) or encoding not in (None, "base64"):
        return False
    try:
        data = body.encode()
        if encoding == "base64":
            base64.b64decode(data)
    except ValueError:
        return False
    return True


def _shown(item: bytes) -> str:
    return f"an item of {len(item):,} bytes"
