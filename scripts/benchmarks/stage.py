"""Redis, a database, and one system's workers at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import redis

from scripts.benchmarks import runs
from scripts.benchmarks.databases import EMPTY, Databases, databases
from scripts.benchmarks.runs import Runs, TooFewRunsError
from scripts.benchmarks.systems import SLOTS, System
from scripts.live.deployment import REPOSITORY
from scripts.live.processes import Process, Processes
from scripts.live.redis_server import RedisServer

READY_SECONDS = 60.0
PUBLISHED_SECONDS = 600.0
SLOWEST_PER_SECOND = 20.0
"""Tasks of the slowest system: less is taken for a hang."""
WARM_UP = 20
"""Tasks before the first figure: each process has imported and connected then."""


class Stage:
    """Where systems take turns: the same Redis, emptied before each."""

    def __init__(
        self, folder: Path, server: RedisServer, client: redis.Redis, databases: Databases
    ) -> None:
        self.folder = folder
        self.databases = databases
        self.redis = client
        self.redis_url = server.url
        self.runs = Runs(folder / "runs")
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.endswith("_FILE")},
            "REDIS_URL": server.url,
            "DATABASE_URL": databases.url,
            "LOG_DIR": "",
            "METRICS_PORT": "0",
            "BEAT_METRICS_PORT": "0",
            runs.FILE: str(self.runs.path),
        }
        self._number = 0

    def clear(self, *, template: str = EMPTY) -> None:
        """Empty Redis, forget what ran, and begin with a copy of a template of ``databases``.

        No worker may be at work.
        """
        self.redis.flushall()
        self.runs.clear()
        self.databases.begin(template)

    def publish(
        self,
        system: System,
        function: str,
        *arguments: Any,
        after: int = 0,
        timeout: float = 0.0,
    ) -> dict[str, Any]:
        """Call a function of the system's module in a process of its own, when ``after`` tasks ran.

        ``timeout`` is in seconds, and at least PUBLISHED_SECONDS. Returns the Unix seconds at
        which it ``began`` and ``ended``, its ``result``, and the process's ``peak_mb`` of memory.
        """
        done = subprocess.run(
            [
                *(sys.executable, "-m", "scripts.benchmarks.publish", system.module),
                *(function, json.dumps(arguments), str(after)),
            ],
            env={**self.environment, **system.environment},
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=max(timeout, PUBLISHED_SECONDS),
        )
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["without a word"])[-1]
            raise RuntimeError(f"{system.name}: {function} failed: {last}\n{done.stderr}")
        said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return said

    @contextmanager
    def working(
        self, system: System, *, environment: Mapping[str, str] | None = None, warm: bool = True
    ) -> Iterator[list[Process]]:
        """The system's workers, stopped at the end; ``warm``: when they have run tasks."""
        self._number += 1
        env = {**self.environment, **system.environment, **(environment or {})}
        # Nobody needs what they would do at their end, which takes two seconds.
        with Processes(grace=0.0) as processes:
            started = [
                processes.start(
                    Process(
                        [sys.executable, "-m", *words],
                        log=self.folder / f"{self._number}-{index}.out",
                        env=env,
                        cwd=REPOSITORY,
                        name=system.name,
                    )
                )
                for index, words in enumerate(system.workers)
            ]
            if warm:
                self.wait_for_warm_up(system, started)
            yield started

    def wait_for_warm_up(self, system: System, started: list[Process]) -> None:
        """Let the workers run a few tasks, then forget them."""
        self.publish(system, "publish", system.noop, WARM_UP)
        self.wait_for_runs(WARM_UP, started, timeout=READY_SECONDS)
        time.sleep(0.3)  # the last ones are still being acknowledged
        self.runs.clear()

    def wait_for_runs(
        self, count: int, workers: list[Process], *, timeout: float, backlog: bool = False
    ) -> list[runs.Run]:
        """As ``Runs.wait_for``; what failed is told with the workers' last words."""
        try:
            return self.runs.wait_for(count, timeout=timeout, backlog=backlog)
        except TooFewRunsError as error:
            words = "\n".join(
                line for worker in workers for line in worker.log_text().splitlines()[-15:]
            )
            raise TooFewRunsError(f"{workers[0].name}: {error}\n{words}") from None


def seconds_for(tasks: int, *, least: float = 300.0) -> float:
    """How long so many tasks may take before they are given up."""
    return least + tasks / SLOWEST_PER_SECOND


@contextmanager
def stage(*, database: str = "sqlite") -> Iterator[Stage]:
    """A Redis without persistence, a database of that kind, and a folder; gone at the end."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        databases(database, Path(folder)) as made,
        RedisServer() as server,
        server.client() as client,
    ):
        yield Stage(Path(folder), server, client, made)


def cpu_seconds(processes: list[Process]) -> float:
    """Processor time of the processes and all that they started, also of what has ended."""
    total = 0.0
    for process in processes:
        main = psutil.Process(process.pid)
        for each in (main, *main.children(recursive=True)):
            try:
                times = each.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += sum(times[:4])  # user, system, and those of the children that have ended
    return total


__all__ = ["SLOTS", "Stage", "cpu_seconds", "seconds_for", "stage"]
