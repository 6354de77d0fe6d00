"""A whole deployment on this machine: database file, mail server, workers, beat, Flower."""

from __future__ import annotations

import http.client
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Self

from scripts.live.mail_catcher import MailCatcher
from scripts.live.mailbox import Mailbox
from scripts.live.ports import HOST
from scripts.live.processes import GRACE, POLL, Process, Processes

REPOSITORY = Path(__file__).resolve().parents[2]
READY_TIMEOUT = 60.0  # seconds; importing Celery alone takes some on a busy machine

WORKER_IS_READY = r"\bready\."
BEAT_IS_READY = r"beat: Starting"


class Deployment:
    """A context with a folder of its own, a mail catcher, and the app's processes.

    The Redis is given by its URL: who wants to break it starts a ``RedisServer``
    around this. The processes run the app named ``app`` from the repository's
    root, in an environment that points at this deployment and nothing else.
    """

    def __init__(
        self,
        *,
        redis_url: str,
        folder: Path | None = None,
        app: str = "app.tasks",
        environment: Mapping[str, str] | None = None,
        smtp_port: int | None = None,
        grace: float = GRACE,
    ) -> None:
        """``environment`` overrides; ``grace``: seconds a process has to stop at the end.

        A given folder is kept, a temporary one is deleted at the end.
        """
        self._temporary = folder is None
        self.folder = (folder or Path(tempfile.mkdtemp(prefix="deployment-"))).resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.app = app
        self.redis_url = redis_url
        self.database = self.folder / "marketplace.sqlite3"
        self.log_folder = self.folder / "logs"
        self.mail = MailCatcher(self.folder / "mail", port=smtp_port)
        self.processes = Processes(grace=grace)
        ours = {
            "REDIS_URL": redis_url,
            "DATABASE_URL": self.database_url,
            "SMTP_URL": self.mail.url,
            "CELERY_TIMEZONE": "US/Eastern",
            "LOG_DIR": str(self.log_folder),
            # Several deployments share this machine; who wants a page names a port.
            "METRICS_PORT": "0",
            "BEAT_METRICS_PORT": "0",
            "PYTHONUNBUFFERED": "1",
            **(environment or {}),
        }
        # The app takes NAME_FILE for NAME, and refuses both.
        files = {f"{name}_FILE" for name in ours}
        outer = {name: value for name, value in os.environ.items() if name not in files}
        self.environment: dict[str, str] = {**outer, **ours}

    @property
    def database_url(self) -> str:
        """The SQLite file of this deployment, as SQLAlchemy names it."""
        return f"sqlite:///{self.database}"

    @property
    def mailbox(self) -> Mailbox:
        """What the mail server accepted."""
        return self.mail.mailbox

    def __enter__(self) -> Self:
        self.mail.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.processes.__exit__(kind, error, traceback)
        finally:
            self.mail.stop()
            if self._temporary:
                shutil.rmtree(self.folder, ignore_errors=True)

    def start_worker(
        self,
        *arguments: str,
        name: str = "worker",
        pool: str = "prefork",
        concurrency: int = 2,
        queues: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
        timeout: float = READY_TIMEOUT,
    ) -> Process:
        """A worker that consumes, from the given queues or from all.

        Names must differ among workers that live at the same time.
        """
        process = self.celery(
            "worker",
            *("--loglevel=INFO", f"--hostname={name}@%h"),
            *(f"--pool={pool}", f"--concurrency={concurrency}"),
            *([f"--queues={','.join(queues)}"] if queues else []),
            *arguments,
            name=name,
            environment=environment,
        )
        process.wait_for_line(WORKER_IS_READY, timeout=timeout)
        return process

    def start_beat(
        self,
        *arguments: str,
        name: str = "beat",
        environment: Mapping[str, str] | None = None,
        timeout: float = READY_TIMEOUT,
    ) -> Process:
        """A beat that has begun to tick."""
        process = self.celery(
            "beat", "--loglevel=INFO", "--pidfile=", *arguments, name=name, environment=environment
        )
        process.wait_for_line(BEAT_IS_READY, timeout=timeout)
        return process

    def start_flower(
        self,
        port: int,
        *arguments: str,
        name: str = "flower",
        environment: Mapping[str, str] | None = None,
        timeout: float = READY_TIMEOUT,
    ) -> Process:
        """A Flower whose pages answer on ``port`` of 127.0.0.1.

        ``ProcessEndedError`` where another process listens there already.
        """
        process = self.run(
            self.flower_command(port, *arguments), name=name, environment=environment
        )
        deadline = time.monotonic() + timeout
        while not is_serving(process, port):
            if not process.alive:
                raise process.ended("before its pages answered")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{process} did not answer in {timeout} s")
            time.sleep(POLL)
        return process

    def flower_command(self, port: int, *arguments: str) -> list[str]:
        """The command of a Flower on ``port`` of 127.0.0.1."""
        return self._celery_command("flower", f"--port={port}", f"--address={HOST}", *arguments)

    def celery(
        self, *arguments: str, name: str, environment: Mapping[str, str] | None = None
    ) -> Process:
        """Start ``celery -A APP ARGUMENTS`` and do not wait for anything."""
        return self.run(self._celery_command(*arguments), name=name, environment=environment)

    def _celery_command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "celery", "-A", self.app, *arguments]

    def run(
        self, command: Sequence[str], *, name: str, environment: Mapping[str, str] | None = None
    ) -> Process:
        """Start any command at the repository's root, in this deployment's environment."""
        return self.processes.start(
            Process(
                command,
                log=self.log_folder / f"{name}.out",
                env={**self.environment, **(environment or {})},
                cwd=REPOSITORY,
                name=name,
            )
        )

    def logs(self) -> dict[str, str]:
        """What each process wrote to its output, by file name."""
        return self.processes.logs()


def is_serving(process: Process, port: int) -> bool:
    """Whether ``process`` itself answers on ``port``: another Flower's page looks the same."""
    return process.listens_on(port) and _answers(port, "/healthcheck")


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
