"""Lines as a user types them."""

import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from scripts.live.deployment import REPOSITORY, WORKER_IS_READY, Deployment
from scripts.live.processes import Process

READY = 60.0  # seconds until a command is up on a busy machine
SHUTDOWN = 30.0  # seconds; a warm shutdown waits for what runs


class Shell:
    """Runs lines at the repository's root, in the environment of a deployment.

    ``celery`` and ``python`` are those that run the tests. Variables that differ from the
    deployment's are given by their names.
    """

    def __init__(self, live: Deployment) -> None:
        self.live = live
        commands = Path(sys.executable).parent
        live.environment["PATH"] = f"{commands}{os.pathsep}{os.environ['PATH']}"

    def start(self, line: str, *, name: str | None = None, **environment: str) -> Process:
        """Start a command that goes on running."""
        name = name or f"{len(list(self.live.processes))} {line.replace('/', '_')}"
        return self.live.run(shlex.split(line), name=name, environment=environment)

    def start_worker(self, line: str, *, name: str | None = None, **environment: str) -> Process:
        """Start a worker, and wait until it consumes."""
        worker = self.start(line, name=name, **environment)
        worker.wait_for_line(WORKER_IS_READY, timeout=READY)
        return worker

    def run(self, line: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command that ends by itself."""
        return subprocess.run(
            shlex.split(line),
            cwd=REPOSITORY,
            env={**self.live.environment, **environment},
            capture_output=True,
            text=True,
            timeout=READY,
            check=False,
        )

    def answer(self, line: str) -> str:
        """What a command prints that must succeed."""
        done = self.run(line)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def together(self, *lines: str, **environment: str) -> list[subprocess.CompletedProcess[str]]:
        """Run several commands that end by themselves at the same time."""
        with ThreadPoolExecutor(len(lines)) as threads:
            return list(threads.map(lambda line: self.run(line, **environment), lines))
