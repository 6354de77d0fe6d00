"""A real Redis for the engine: its lists and hashes are real, its clock and its faults virtual."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis
from redis.client import Pipeline
from redis.exceptions import ConnectionError as RedisConnectionError

from simulations.engine.memory_redis import FreeLock


class NotEmptyError(Exception):
    """There are keys in the database, which a replay would mix with its own and delete."""


class RealRedis(redis.Redis):
    """A client that refuses while the replay says that the server is down."""

    _refuses: Callable[[], bool]
    _seconds: Callable[[], float]

    @classmethod
    def connect(cls, url: str, seconds: Callable[[], float]) -> RealRedis:
        """Raises ``NotEmptyError``, and redis-py's errors where the server is not there."""
        client: Any = cls.from_url(url, health_check_interval=0)
        client._refuses = lambda: False
        client._seconds = seconds
        if keys := client.dbsize():
            raise NotEmptyError(f"its database has {keys} keys")
        # Where kombu sends the BRPOP that parse_response answers.
        client.connection = _Sent()
        connected: RealRedis = client
        return connected

    def refuse_when(self, refuses: Callable[[], bool]) -> None:
        """Raise ``ConnectionError`` at every command while ``refuses()`` says so."""
        self._refuses = refuses

    def _check(self) -> None:
        if self._refuses():
            raise RedisConnectionError("Connection refused (virtual)")

    def execute_command(self, *args: Any, **options: Any) -> Any:
        self._check()
        connection, self.connection = self.connection, None
        try:
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        finally:
            self.connection = connection

    def lock(self, *_args: Any, **_options: Any) -> Any:
        # redis-py's draws its token from the ``random`` module, and so moves every draw after.
        self._check()
        return FreeLock()

    def time(self, **_options: Any) -> tuple[int, int]:
        self._check()
        whole, _, part = f"{self._seconds():.6f}".partition(".")
        return int(whole), int(part)

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Pipeline:
        made = _GuardedPipeline(
            self.connection_pool, self.response_callbacks, transaction, shard_hint
        )
        made._check = self._check
        return made

    def parse_response(self, connection: Any, command_name: str, **options: Any) -> Any:
        if not isinstance(connection, _Sent):
            return super().parse_response(connection, command_name, **options)  # type: ignore[no-untyped-call]
        self._check()
        *keys, timeout = connection.sent
        refuses, self._refuses = self._refuses, lambda: False  # one round trip, as in memory
        try:
            # An empty BRPOP costs a tenth of a second; nobody else pushes in between.
            return self.brpop(keys, timeout) if self.exists(*keys) else None
        finally:
            self._refuses = refuses


class _GuardedPipeline(Pipeline):
    _check: Callable[[], None]

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        self._check()
        return super().execute(raise_on_error)

    def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        self._check()
        return super().immediate_execute_command(*args, **options)  # type: ignore[no-untyped-call]


class _Sent:
    sent: tuple[Any, ...] = ()

    def send_command(self, _name: str, *args: Any) -> None:
        self.sent = args

    def disconnect(self) -> None: ...
