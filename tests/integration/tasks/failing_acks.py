"""A worker whose first acknowledgements fail: ``celery -A tests.integration.tasks.failing_acks``.

As when the connection that kombu takes from its pool for one is cut. What is not
acknowledged costs the channel one of its credits for good.
"""

import os
from itertools import count
from typing import Any

from celery import signals
from kombu.transport.redis import QoS
from redis.exceptions import ConnectionError as RedisConnectionError

from scripts.live.jobs import celery_app

__all__ = ["celery_app"]

FAILURES = "FAILING_ACKS"
"""Environment variable: how many."""

_ack = QoS.ack
_number = count(1)


def fail_first(self: QoS, delivery_tag: Any) -> None:
    if next(_number) <= int(os.environ[FAILURES]):
        raise RedisConnectionError("cut")
    _ack(self, delivery_tag)


@signals.worker_init.connect(weak=False)
def _patch(**_: Any) -> None:
    # A test imports this for its names, and others run workers in the test's own process.
    if FAILURES in os.environ:
        QoS.ack = fail_first
