"""A real PostgreSQL server of our own, whose data is thrown away with it."""

from __future__ import annotations

import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from sqlalchemy import URL

from scripts.live.ports import HOST, free_port
from scripts.live.processes import POLL, Process

OLDEST = 13  # from here on a database's owner may create btree_gist
DEBIAN = "/usr/lib/postgresql/*/bin"  # its packages leave the server's programs off the PATH
USER = "postgres"
START_TIMEOUT = 30.0  # seconds until it answers; making its files is half of that when all is busy
STOP_TIMEOUT = 5.0  # seconds

# What a crash of the machine would lose nobody wants to keep.
WITHOUT_SAFETY = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


class NoPostgresServerError(RuntimeError):
    """There is no usable server on this machine; the message says what to install."""


def find_programs() -> Path:
    """The folder with ``initdb`` and ``postgres``: that of the PATH, else Debian's newest.

    NoPostgresServerError, in one line, if neither is there or new enough.
    """
    on_path = shutil.which("postgres")
    folders = [Path(on_path).resolve().parent] if on_path else []
    root, pattern = Path("/"), DEBIAN.lstrip("/")
    folders += sorted(root.glob(pattern), key=version, reverse=True)
    for folder in folders:
        if (folder / "initdb").exists() and version(folder) >= OLDEST:
            return folder
    seen = f" ({', '.join(map(str, folders))}: too old or broken)" if folders else ""
    raise NoPostgresServerError(
        f"no PostgreSQL server >= {OLDEST}{seen}: install one"
        " (apt install postgresql, brew install postgresql)"
    )


def version(folder: Path) -> int:
    """The major version that the ``postgres`` in a folder says; 0 where it does not run."""
    try:
        answer = subprocess.run(
            [folder / "postgres", "--version"], capture_output=True, text=True, timeout=10
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = re.search(r"\(PostgreSQL\) (\d+)", answer)
    return int(found[1]) if found else 0


class PostgresServer:
    """A context in which a server answers on ``url``, a port of 127.0.0.1, as fast as it can."""

    def __init__(self, *, port: int | None = None) -> None:
        """Without ``port`` a free one. Data and log are in a temporary folder."""
        self._programs = find_programs()
        self._as_user = _as_unprivileged_user()
        self._password = secrets.token_hex(16)
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        self.port = port or free_port()
        self._data = self.folder / "data"
        options = (*WITHOUT_SAFETY, f"listen_addresses={HOST}", "unix_socket_directories=")
        self.process = Process(
            [
                *self._as_user,
                *(self._programs / "postgres", "-D", self._data, "-p", str(self.port)),
                *(word for option in options for word in ("-c", option)),
            ],
            log=self.folder / "postgres.log",
            name="postgres",
        )

    @property
    def url(self) -> URL:
        """Its superuser's way to the database that is always there."""
        return URL.create(
            "postgresql+psycopg",
            username=USER,
            password=self._password,
            host=HOST,
            port=self.port,
            database="postgres",
        )

    def __enter__(self) -> Self:
        try:
            self._make_data()
            self.process.start()
            self._wait_until_it_answers()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    def _close(self) -> None:
        # SIGQUIT: at once, and without the shared memory that a SIGKILL would leave.
        self.process.signal(signal.SIGQUIT)
        try:
            if self.process.alive:
                self.process.wait(STOP_TIMEOUT)
        except TimeoutError:
            pass
        finally:
            self.process.kill()
            shutil.rmtree(self.folder, ignore_errors=True)

    def _make_data(self) -> None:
        password_file = self.folder / "password"
        password_file.write_text(self._password)
        if self._as_user:
            for path in (self.folder, password_file):
                shutil.chown(path, USER)
        made = subprocess.run(
            [
                *self._as_user,
                *(self._programs / "initdb", "--pgdata", self._data),
                *("--username", USER, "--pwfile", password_file, "--auth", "scram-sha-256"),
                *("--encoding", "UTF8", "--locale", "C", "--no-sync"),
            ],
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT,
            cwd=self.folder,
        )
        if made.returncode != 0:
            raise RuntimeError(f"initdb ended with {made.returncode}: {made.stderr.strip()}")

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        url = self.url.set(drivername="postgresql").render_as_string(hide_password=False)
        while True:
            try:
                psycopg.connect(url, connect_timeout=2).close()
                return
            except psycopg.OperationalError:  # not yet
                pass
            if not self.process.alive:
                raise self.process.ended("before it answered")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.process} did not answer in {START_TIMEOUT} s")
            time.sleep(POLL)

    def logs(self) -> dict[str, str]:
        """Its log by name."""
        log = self.process.log
        return {log.name: log.read_text(errors="replace") if log.exists() else ""}


def _as_unprivileged_user() -> Sequence[str]:
    """What goes before a command of the server: it refuses to run as root."""
    if os.geteuid() != 0:
        return ()
    try:
        pwd.getpwnam(USER)
    except KeyError:
        raise NoPostgresServerError(
            f"PostgreSQL does not run as root, and there is no user {USER}"
        ) from None
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise NoPostgresServerError("PostgreSQL does not run as root, and there is no setpriv")
    # A change of the user clears the wish to die with the parent (PR_SET_PDEATHSIG).
    return (
        *(setpriv, f"--reuid={USER}", f"--regid={USER}", "--clear-groups"),
        *("--pdeathsig=KILL", "--"),
    )
