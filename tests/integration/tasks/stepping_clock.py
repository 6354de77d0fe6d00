"""The jobs on a machine whose clock steps an hour ahead once a file exists."""

import os
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from kombu.transport import redis as kombu_redis

from app import clock
from scripts.live.jobs import celery_app

__all__ = ["STEP_FILE", "celery_app"]

STEP_FILE = "CLOCK_STEP_FILE"
"""Variable with the file's name."""
STEP = timedelta(hours=1)

_step_file = Path(os.environ[STEP_FILE]) if STEP_FILE in os.environ else None
_utcnow: Callable[[], datetime] = clock.utcnow
_time: Callable[[], float] = kombu_redis.time


def _step() -> timedelta:
    return STEP if _step_file is not None and _step_file.exists() else timedelta(0)


clock.utcnow = lambda: _utcnow() + _step()
# kombu takes the start and the end of each lease from it.
kombu_redis.time = lambda: _time() + _step().total_seconds()
