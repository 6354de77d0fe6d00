"""What a benchmark tells the processes that it starts."""

from __future__ import annotations

import os

REDIS_URL = "REDIS_URL"
FASTEST = "BENCH_FASTEST"
"""Set: the fastest settings; not set: those with which a task survives a SIGKILL."""
KEEP_CONNECTION = "BENCH_KEEP_CONNECTION"
"""Set: a peer's process keeps its connection to the mail server."""

PRIORITIES = "BENCH_PRIORITIES"
"""Set: urgent tasks and others, where a system needs to be told."""
WITHOUT = "BENCH_WITHOUT"
"""Parts of our worker that are switched off, separated by commas."""


def redis_url() -> str:
    """The Redis that all systems use."""
    return os.environ[REDIS_URL]


def fastest() -> bool:
    """Whether losing a task with its process is allowed."""
    return bool(os.environ.get(FASTEST))


def keeps_connection() -> bool:
    """Whether a mail goes over the connection of the one before."""
    return bool(os.environ.get(KEEP_CONNECTION))


def with_priorities() -> bool:
    """Whether urgent tasks are to overtake others."""
    return bool(os.environ.get(PRIORITIES))


def without(part: str) -> bool:
    """Whether our worker is to leave out a part of what it does, to tell what that costs."""
    return part in os.environ.get(WITHOUT, "").split(",")
