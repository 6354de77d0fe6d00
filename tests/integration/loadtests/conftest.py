"""Locust as an operator runs it: a process beside a deployment that works."""

from __future__ import annotations

import csv
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
import redis

from app.routing import QUEUES
from scripts.live.deployment import REPOSITORY, Deployment
from scripts.live.ports import HOST, free_port
from scripts.live.processes import Process

RUNS_SECONDS = 120.0
"""A few seconds of load, and all that comes before and after on a busy machine."""
PATIENT = "\n".join(f"[{spec.name}]\nin_queue = {{ p99 = 600 }}" for spec in QUEUES)
"""Objectives that a busy machine keeps, too."""


@dataclass(frozen=True)
class Done:
    """What a load test that has ended said."""

    status: int
    output: str
    folder: Path

    @property
    def figures(self) -> Mapping[tuple[str, str], Mapping[str, str]]:
        """Locust's CSV by type and name."""
        with (self.folder / "load_stats.csv").open(newline="") as file:
            return {(row["Type"], row["Name"]): row for row in csv.DictReader(file)}

    @property
    def report(self) -> str:
        return (self.folder / "report.html").read_text()


class Locust:
    """Starts load tests of a deployment, with every path but the host left to the tests."""

    def __init__(self, live: Deployment, folder: Path) -> None:
        self.live = live
        self.folder = folder
        self.patient = folder / "patient.toml"
        folder.mkdir()
        self.patient.write_text(PATIENT)
        self._numbers = count(1)

    def start(self, *arguments: str, cwd: Path = REPOSITORY, **environment: str) -> Process:
        # An operator gives the host, and nothing else that leads to a server.
        inherited = {
            name: value
            for name, value in self.live.environment.items()
            if not name.endswith("_URL")
        }
        name = f"locust-{next(self._numbers)}"
        return self.live.processes.start(
            Process(
                [sys.executable, "-m", "locust", "-f", "loadtests", *arguments],
                log=self.folder / f"{name}.out",
                env={**inherited, **environment},
                cwd=cwd,
                name=name,
            )
        )

    def run(self, *arguments: str, cwd: Path = REPOSITORY, **environment: str) -> Done:
        """A headless test of the deployment, to its end."""
        reports = (f"--csv={self.folder / 'load'}", f"--html={self.folder / 'report.html'}")
        process = self.start(
            "--headless",
            f"--host={self.live.redis_url}",
            *reports,
            *arguments,
            cwd=cwd,
            **environment,
        )
        return self.end(process)

    def start_page(self, *arguments: str) -> tuple[Process, str]:
        """Locust with its page, which answers; and where."""
        port = free_port()
        address = f"http://{HOST}:{port}"
        process = self.start(f"--web-port={port}", *arguments)
        process.wait_for_line(f"Starting web interface at {address}", timeout=RUNS_SECONDS)
        deadline = time.monotonic() + RUNS_SECONDS
        while True:
            try:
                urllib.request.urlopen(address, timeout=RUNS_SECONDS).close()
                return process, address
            except OSError:  # it says so before it listens
                assert time.monotonic() < deadline
                time.sleep(0.1)

    def end(self, process: Process) -> Done:
        status = process.wait(RUNS_SECONDS)
        return Done(status, process.log_text(), self.folder)

    def waiting(self) -> int:
        """Messages that wait in any queue of the deployment, or are held by a worker."""
        with redis.Redis.from_url(self.live.redis_url) as client:
            names = {spec.name.encode() for spec in QUEUES}
            lists = [
                key for key in client.scan_iter(_type="list") if key.partition(b"\x06")[0] in names
            ]
            return sum(client.llen(key) for key in lists) + client.hlen("unacked")


@pytest.fixture
def locust(live: Deployment, tmp_path: Path) -> Iterator[Locust]:
    return Locust(live, tmp_path / "locust")
