"""Which tasks ran and how long they waited: a record for each, in a file all workers share.

A no-op of a benchmark is one ``mark``: it costs each system the same few microseconds, and
counts what ran without asking any system for its own idea of that.
"""

from __future__ import annotations

import os
import struct
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FILE = "BENCH_RUNS"
"""Variable with the path of the file."""
POLL_SECONDS = 0.01
BACKLOG = -1.0
"""Instead of the instant at which it was published, for a task that only is to be in the way."""
BUSY_SECONDS = 600.0
"""Of a task that is killed before it ends."""

_RECORD = struct.Struct("<dd")


class TooFewRunsError(TimeoutError):
    """Tasks that were published did not run in time."""


def mark(published_at: float) -> None:
    """Record a run that begins now, of a task published at ``published_at`` (Unix seconds)."""
    # One write of an O_APPEND file: records of several processes do not mix.
    os.write(_file(), _RECORD.pack(published_at, time.time()))


def wait_for_runs(count: int) -> None:
    """Return when so many tasks have run, in a process that was started before their workers."""
    while count and os.stat(_file()).st_size < count * _RECORD.size:
        time.sleep(POLL_SECONDS)


@cache
def _file() -> int:
    return os.open(os.environ[FILE], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


@dataclass(frozen=True)
class Run:
    """One run; Unix seconds."""

    published_at: float
    started_at: float

    @property
    def waited(self) -> float:
        """Seconds in the queue."""
        return self.started_at - self.published_at


class Runs:
    """The records in a file, as the benchmark's own process sees them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clear()

    def clear(self) -> None:
        """Forget all records; workers go on with the same file."""
        self.path.write_bytes(b"")

    def __len__(self) -> int:
        return self.path.stat().st_size // _RECORD.size

    def all(self) -> list[Run]:
        """Every run, by its start."""
        records = _RECORD.iter_unpack(self.path.read_bytes())
        return sorted((Run(*each) for each in records), key=lambda run: run.started_at)

    def timed(self) -> list[Run]:
        """Every run but those of a backlog, by its start."""
        return [run for run in self.all() if run.published_at != BACKLOG]

    def wait_for(self, count: int, *, timeout: float, backlog: bool = False) -> list[Run]:
        """All runs, once there are ``count``; ``TooFewRunsError`` after ``timeout`` seconds.

        With a ``backlog``, of whose tasks nothing is to be known, all timed ones.
        """
        until = time.monotonic() + timeout
        while (len(self.timed()) if backlog else len(self)) < count:
            if time.monotonic() > until:
                raise TooFewRunsError(f"{len(self)} of {count} tasks ran in {timeout:g} s")
            time.sleep(POLL_SECONDS)
        return self.timed() if backlog else self.all()


def rate(runs: list[Run], *, warm_up: float = 0.1) -> float:
    """Runs a second, without the first part (``warm_up`` of them): processes start one by one."""
    first = int(len(runs) * warm_up)
    seconds = runs[-1].started_at - runs[first].started_at
    return (len(runs) - 1 - first) / seconds if seconds > 0 else float("inf")


def percentile(values: list[float], per_cent: float) -> float:
    """The value below which ``per_cent`` of ``values`` lie: the nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * per_cent / 100))]
