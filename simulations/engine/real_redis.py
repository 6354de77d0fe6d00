"""A real Redis for the engine: its lists and hashes are real, its clock and its faults virtual."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis
from redis.client import Pipeline
from redis.exceptions import ConnectionError as RedisConnectionError

from simulations.engine.memory_redis import OnLock, OnPush, VirtualLock, refuse_large

PUSHES = ("LPUSH", "RPUSH")


class NotEmptyError(Exception):
    """There are keys in the database, which a replay would mix with its own and delete."""


class RealRedis(redis.Redis):
    """A client that refuses while the replay says that the server is down."""

    _refuses: Callable[[], bool]
    _seconds: Callable[[], float]
    _on_lock: OnLock
    _on_push: OnPush

    @classmethod
    def connect(cls, url: str, seconds: Callable[[], float]) -> RealRedis:
        """Raises ``NotEmptyError``, and redis-py's errors where the server is not there."""
        client: Any = cls.from_url(url, health_check_interval=0)
        client._refuses = lambda: False
        client._seconds = seconds
        client._on_lock = client._on_push = lambda _name: None
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
            answer = super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        finally:
            self.connection = connection
        if args[0] in PUSHES:
            self._on_push(args[1])
        return answer

    def observe_pushes(self, on_push: OnPush) -> None:
        """Call ``on_push`` with the key of each list that something was pushed to."""
        self._on_push = on_push

    def observe_locks(self, on_lock: OnLock) -> None:
        """Call ``on_lock`` with the name of each lock that is taken, in the process that has it."""
        self._on_lock = on_lock

    def lock(self, *args: Any, **options: Any) -> Any:
        # redis-py's draws its token from the ``random`` module, and so moves every draw after;
        # and the server's time-out passes by real time.
        return VirtualLock(self, args[0], options["timeout"], self._seconds, self._on_lock)

    def time(self, **_options: Any) -> tuple[int, int]:
        self._check()
        whole, _, part = f"{self._seconds():.6f}".partition(".")
        return int(whole), int(part)

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Pipeline:
        made = _GuardedPipeline(
            self.connection_pool, self.response_callbacks, transaction, shard_hint
        )
        made._check = self._check
        made._on_push = lambda key: self._on_push(key)
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
    _on_push: OnPush

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        self._check()
        for arguments, _ in self.command_stack:
            refuse_large(arguments)
        pushed = [arguments[1] for arguments, _ in self.command_stack if arguments[0] in PUSHES]
        answers = super().execute(raise_on_error)
        for key in pushed:
            self._on_push(key)
        return answers

    def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        self._check()
        return super().immediate_execute_command(*args, **options)  # type: ignore[no-untyped-call]


class _Sent:
    sent: tuple[Any, ...] = ()

    def send_command(self, _name: str, *args: Any) -> None:
        self.sent = args

    def disconnect(self) -> None: ...
