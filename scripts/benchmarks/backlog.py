"""A list of Redis full of messages, in seconds.

Publishing them as an application does would take minutes, and look the same in Redis.
"""

from __future__ import annotations

import json
from uuid import uuid4

import redis

from app.routing import QueueSpec, wire_priority

BATCH = 5000


def list_of(spec: QueueSpec) -> str:
    """The key in which kombu keeps the messages of a queue's own urgency."""
    priority = wire_priority(spec.urgency)
    return f"{spec.name}\x06\x16{priority}" if priority else spec.name


def multiply(client: redis.Redis, key: str, count: int) -> None:
    """Let the one message in the list be ``count``, each with an id and a tag of its own."""
    [message] = map(str, client.lrange(key, 0, -1))
    envelope = json.loads(message)
    task_id, tag = envelope["headers"]["id"], envelope["properties"]["delivery_tag"]
    for start in range(1, count, BATCH):
        with client.pipeline(transaction=False) as pipe:
            for _ in range(start, min(start + BATCH, count)):
                copy = message.replace(task_id, str(uuid4())).replace(tag, str(uuid4()))
                pipe.lpush(key, copy)
            pipe.execute()
