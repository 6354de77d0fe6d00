"""Two real Redis servers, one a replica of the other, and three sentinels that watch them."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from secrets import token_hex
from types import TracebackType
from typing import Self

import redis
from redis.sentinel import Sentinel

from scripts.live.certificates import Certificates
from scripts.live.ports import HOST, free_port
from scripts.live.processes import POLL, Process, Processes
from scripts.live.redis_server import NO_RETRY, RedisServer, find_server, tls_directives

MASTER = "mymaster"
SENTINELS = 3
QUORUM = 2
READY_TIMEOUT = 30.0  # seconds until all know each other
FAILOVER_TIMEOUT = 60.0
ONE_ANSWER = 1.0


class SentinelledRedis:
    """A context in which ``url`` leads to whichever of two servers is the master now.

    The master is unreachable for ``down_after`` seconds before the sentinels promote the
    replica. Both servers keep an append-only file.
    """

    def __init__(
        self,
        *,
        folder: Path | None = None,
        down_after: float = 1.0,
        tls: Certificates | None = None,
    ) -> None:
        self.folder = folder or Path(tempfile.mkdtemp(prefix="sentinels-"))
        self._temporary = folder is None
        self._down_after = down_after
        # With signs that a URL must escape.
        self._password, self._sentinel_password = (f"@/{token_hex(8)}" for _ in range(2))
        self._tls = tls
        self._processes = Processes()
        self._stack = ExitStack()
        first = self._server("one")
        self.servers = (first, self._server("other", "--replicaof", HOST, str(first.port)))
        self.ports = tuple(free_port() for _ in range(SENTINELS))

    def _server(self, name: str, *options: str) -> RedisServer:
        return RedisServer(
            folder=self.folder / name,
            persistence="aof",
            password=self._password,
            tls=self._tls,
            # By default a master waits five seconds for more replicas before it copies.
            options=("--masterauth", self._password, "--repl-diskless-sync-delay", "0", *options),
        )

    @property
    def url(self) -> str:
        """As REDIS_URL takes it, without passwords."""
        scheme = "sentinel" if self._tls is None else "sentinels"
        return ";".join(f"{scheme}://{HOST}:{port}" for port in self.ports)

    @property
    def environment(self) -> dict[str, str]:
        """What the app needs to know beside the URL."""
        known = {
            "REDIS_SENTINEL_MASTER": MASTER,
            "REDIS_PASSWORD": self._password,
            "REDIS_SENTINEL_PASSWORD": self._sentinel_password,
        }
        return known if self._tls is None else {**known, "REDIS_TLS_CA": str(self._tls.ca)}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            if self._temporary:
                stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            for server in self.servers:
                stack.enter_context(server)
            stack.enter_context(self._processes)
            for port in self.ports:
                self._start_sentinel(port)
            self._wait_until(self._all_know_each_other, READY_TIMEOUT)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for server in self.servers:
            server.resume()  # a hung one could not stop
        self._stack.__exit__(kind, error, traceback)

    @property
    def master(self) -> RedisServer:
        """The server that the sentinels call the master now."""
        with self._sentinel() as known:
            _, port = known.discover_master(MASTER)
        return next(server for server in self.servers if server.port == port)

    @property
    def replica(self) -> RedisServer:
        """The server that would be promoted now."""
        master = self.master
        return next(server for server in self.servers if server is not master)

    def cut_off_replica(self) -> RedisServer:
        """Stop the replica, which hears nothing of the master's writes until it is resumed."""
        master, replica = self.master, self.replica
        replica.pause()
        # Else the kernel would go on taking them for it.
        master.client().client_kill_filter(_type="replica")
        return replica

    def wait_for_failover(self, lost: RedisServer) -> float:
        """Wait until another than ``lost`` is the master; returns the seconds it took."""
        started = time.monotonic()

        def promoted() -> bool:
            try:
                master = self.master
                return master is not lost and bool(master.client().role()[0] == "master")
            except redis.RedisError:
                return False

        self._wait_until(promoted, FAILOVER_TIMEOUT)
        return time.monotonic() - started

    def wait_for_replica(self, server: RedisServer) -> None:
        """Wait until ``server``, which came back, follows the master and is up to date."""

        def follows() -> bool:
            try:
                state = server.client().info("replication")
            except redis.RedisError:
                return False
            return (state["role"], state.get("master_link_status")) == ("slave", "up")

        self._wait_until(follows, FAILOVER_TIMEOUT)

    def logs(self) -> dict[str, str]:
        """What servers and sentinels wrote, by name."""
        servers = {
            f"{server.folder.name} {name}": text
            for server in self.servers
            for name, text in server.logs().items()
        }
        return {**servers, **self._processes.logs()}

    def _start_sentinel(self, port: int) -> None:
        folder = self.folder / f"sentinel-{port}"
        folder.mkdir(parents=True)
        milliseconds = round(self._down_after * 1000)
        # Its own file, which it rewrites with what it learns.
        configuration = folder / "sentinel.conf"
        configuration.write_text(
            "\n".join(
                (
                    f"sentinel monitor {MASTER} {HOST} {self.servers[0].port} {QUORUM}",
                    f'sentinel auth-pass {MASTER} "{self._password}"',
                    f"sentinel down-after-milliseconds {MASTER} {milliseconds}",
                    f"sentinel failover-timeout {MASTER} {5 * milliseconds}",
                    f'requirepass "{self._sentinel_password}"',
                    f'sentinel sentinel-pass "{self._sentinel_password}"',
                )
            )
        )
        own: tuple[str, ...] = ("--port", str(port))
        if self._tls is not None:
            own = ("--tls-port", str(port), *tls_directives(self._tls))
        server = str(find_server())
        self._processes.start(
            Process(
                [
                    *(server, str(configuration), "--sentinel", "--bind", HOST, *own),
                    *("--dir", str(folder), "--daemonize", "no"),
                ],
                log=folder / "sentinel.log",
                name=f"sentinel-{port}",
            )
        )

    def _sentinel(self) -> Sentinel:
        options = {
            "password": self._sentinel_password,
            "socket_timeout": ONE_ANSWER,
            "retry": NO_RETRY,
        }
        if self._tls is not None:
            options |= {"ssl": True, "ssl_ca_certs": str(self._tls.ca)}
        return Sentinel([(HOST, port) for port in self.ports], sentinel_kwargs=options)  # type: ignore[no-untyped-call]

    def _all_know_each_other(self) -> bool:
        with self._sentinel() as known:
            try:
                seen = [each.sentinel_masters()[MASTER] for each in known.sentinels]
            except (redis.RedisError, KeyError):
                return False
        return all(
            master["num-slaves"] == 1 and master["num-other-sentinels"] == SENTINELS - 1
            for master in seen
        )

    def _wait_until(self, condition: Callable[[], bool], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                ends = [f"{name}:\n{text[-2000:]}" for name, text in self.logs().items()]
                raise TimeoutError("\n".join((f"not within {timeout} s", *ends)))
            time.sleep(5 * POLL)
