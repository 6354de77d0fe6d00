"""Messages of a load test that still lie in their queues at its end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from celery import Celery

from app import trace
from app.outbox import PUBLISHED_AT_HEADER
from app.routing import MOST_URGENT, QUEUES

PAGE = 500
"""Messages in one answer of Redis."""


def remove(app: Celery, trace_id: str) -> list[tuple[str, str, datetime]]:
    """Take the messages with this trace id out of all queues; id, queue and stamp of each.

    One that a worker takes at this moment is the worker's, and not among them. Raises what
    kombu and redis-py raise.
    """
    removed: list[tuple[str, str, datetime]] = []
    with app.connection_for_write() as connection, connection.channel() as opened:
        channel: Any = opened
        client = channel.client
        for spec in QUEUES:
            for priority in range(MOST_URGENT + 1):
                key = channel._q_for_pri(spec.name, priority)
                ours = list(_with_trace(client, key, trace_id))
                for start in range(0, len(ours), PAGE):
                    page = ours[start : start + PAGE]
                    with client.pipeline(transaction=False) as pipe:
                        for raw, _, _ in page:
                            pipe.lrem(key, 1, raw)
                        gone = pipe.execute()
                    removed += [
                        (task_id, spec.name, published_at)
                        for (_, task_id, published_at), number in zip(page, gone, strict=True)
                        if number
                    ]
    return removed


def _with_trace(client: Any, key: str, trace_id: str) -> Iterator[tuple[bytes, str, datetime]]:
    # From the left, where messages go in: what a worker takes at the right moves no index.
    start = 0
    while page := client.lrange(key, start, start + PAGE - 1):
        for raw in page:
            found = _read(raw, trace_id)
            if found is not None:
                yield raw, *found
        start += PAGE


def _read(raw: bytes, trace_id: str) -> tuple[str, datetime] | None:
    # Most others are told apart without being parsed.
    if trace_id.encode() not in raw:
        return None
    try:
        headers = json.loads(raw)["headers"]
        if headers[trace.HEADER] != trace_id:
            return None
        return str(headers["id"]), datetime.fromisoformat(headers[PUBLISHED_AT_HEADER])
    except (ValueError, LookupError, TypeError):
        return None
