"""Items of the broker's lists, as kombu writes them and as it never would."""

import base64
import json
from collections.abc import Iterable
from typing import Any
from uuid import uuid4

import redis

JOB, STRICT_JOB = "open.job", "open.strict_job"
QUEUE = "celery"
BODY = [[1], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]

Envelope = dict[str, Any]


def headers(task: Any = JOB, message_id: Any = None, **changed: Any) -> dict[str, Any]:
    """Those of Celery's protocol 2; ``changed`` by their names."""
    message_id = str(uuid4()) if message_id is None else message_id
    return {
        "lang": "py",
        "task": task,
        "id": message_id,
        "root_id": message_id,
        "parent_id": None,
        "group": None,
        "eta": None,
        "expires": None,
        "retries": 0,
        "timelimit": [None, None],
        "argsrepr": "(1,)",
        "kwargsrepr": "{}",
        "origin": "somebody@elsewhere",
        "ignore_result": True,
        **changed,
    }


def properties(**changed: Any) -> dict[str, Any]:
    """Those that kombu gives a message to the default queue; ``changed`` by their names."""
    return {
        "correlation_id": str(uuid4()),
        "reply_to": str(uuid4()),
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": QUEUE},
        "priority": 0,
        "body_encoding": "base64",
        "delivery_tag": str(uuid4()),
        **changed,
    }


def envelope(
    body: Any = BODY,
    *,
    raw: bytes | None = None,
    head: Any = None,
    props: Any = None,
    **changed: Any,
) -> Envelope:
    """A sound message, apart from what is given; ``raw`` is the body's bytes."""
    text = json.dumps(body).encode() if raw is None else raw
    return {
        "body": base64.b64encode(text).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers() if head is None else head,
        "properties": properties() if props is None else props,
        **changed,
    }


class Lists:
    """The broker's lists of the default queue."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url)

    def close(self) -> None:
        self._client.close()

    def push(self, items: Iterable[bytes | Envelope]) -> None:
        """Put the items where a worker takes the next message, in this order."""
        self._client.lpush(QUEUE, *map(_encoded, items))

    def publish(self, channel: str, item: bytes | Envelope) -> int:
        """Tell whoever listens on a fanout channel of kombu; how many did."""
        database = self._client.connection_pool.connection_kwargs.get("db", 0)
        return int(self._client.publish(f"/{database}.{channel}", _encoded(item)))

    def waiting(self) -> int:
        """Messages that no worker has taken."""
        keys = self._client.scan_iter(f"{QUEUE}*", _type="list")
        return sum(int(self._client.llen(key)) for key in keys)

    def held(self) -> int:
        """Messages that a worker has taken and not acknowledged."""
        return int(self._client.hlen("unacked"))


def _encoded(item: bytes | Envelope) -> bytes:
    return item if isinstance(item, bytes) else json.dumps(item).encode()
