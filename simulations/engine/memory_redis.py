"""As much of Redis as kombu's transport and an outbox use, in memory, behind redis-py's names.

Fast because nothing is encoded, sent or parsed; right as far as the differential test says,
which replays a day on it and on a real server and compares the traces.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import LockNotOwnedError

LARGEST_ITEM = 2_000_000
"""Bytes: Redis's own limit (proto-max-bulk-len, 512 MB), scaled to a replay."""


class Keys:
    """What a server keeps, and the commands on it."""

    on_push: OnPush

    def __init__(self) -> None:
        self.on_push = _nothing
        self.strings: dict[str, bytes] = {}
        self.lists: dict[str, deque[bytes]] = {}
        self.hashes: dict[str, dict[str, bytes]] = {}
        self.sets: dict[str, dict[bytes, None]] = {}
        self.sorted_sets: dict[str, dict[str, float]] = {}

    # The server.

    def ping(self) -> bool:
        return True

    def info(self, _section: str) -> dict[str, Any]:
        return {"used_memory": 0, "maxmemory": 0, "maxmemory_policy": "noeviction"}

    def flushdb(self) -> bool:
        for kept in self._all():
            kept.clear()
        return True

    def _all(self) -> tuple[dict[str, Any], ...]:
        return self.strings, self.lists, self.hashes, self.sets, self.sorted_sets

    def exists(self, *keys: str) -> int:
        return sum(
            key in self.lists
            or key in self.hashes
            or key in self.sets
            or key in self.sorted_sets
            or key in self.strings
            for key in keys
        )

    def delete(self, *keys: str) -> int:
        found = 0
        for key in keys:
            for kept in self._all():
                found += kept.pop(key, None) is not None
        return found

    # Strings.

    def get(self, key: str) -> bytes | None:
        return self.strings.get(key)

    def set(self, key: str, value: str | bytes) -> bool:
        self.strings[key] = _bytes(value)
        return True

    # Lists: the left end is index 0.

    def lpush(self, key: str, *values: str | bytes) -> int:
        items = self.lists.setdefault(key, deque())
        items.extendleft(_bytes(value) for value in values)
        self.on_push(key)
        return len(items)

    def rpush(self, key: str, *values: str | bytes) -> int:
        items = self.lists.setdefault(key, deque())
        items.extend(_bytes(value) for value in values)
        self.on_push(key)
        return len(items)

    def rpop(self, key: str) -> bytes | None:
        items = self.lists.get(key)
        if items is None:
            return None
        value = items.pop()
        if not items:
            del self.lists[key]
        return value

    def llen(self, key: str) -> int:
        return len(self.lists.get(key, ()))

    def lindex(self, key: str, index: int) -> bytes | None:
        items = self.lists.get(key, ())
        return items[index] if -len(items) <= index < len(items) else None

    # Hashes.

    def hset(self, key: str, field: str | bytes, value: str | bytes) -> int:
        fields = self.hashes.setdefault(key, {})
        added = _text(field) not in fields
        fields[_text(field)] = _bytes(value)
        return int(added)

    def hget(self, key: str, field: str | bytes) -> bytes | None:
        return self.hashes.get(key, {}).get(_text(field))

    def hexists(self, key: str, field: str | bytes) -> bool:
        return _text(field) in self.hashes.get(key, {})

    def hmget(self, key: str, fields: Iterable[str | bytes]) -> list[bytes | None]:
        return [self.hget(key, field) for field in fields]

    def hdel(self, key: str, *fields: str | bytes) -> int:
        kept = self.hashes.get(key, {})
        gone = sum(kept.pop(_text(field), None) is not None for field in fields)
        if key in self.hashes and not kept:
            del self.hashes[key]
        return gone

    # Sets.

    def sadd(self, key: str, *members: str | bytes) -> int:
        kept = self.sets.setdefault(key, {})
        before = len(kept)
        kept.update(dict.fromkeys(_bytes(member) for member in members))
        return len(kept) - before

    def srem(self, key: str, *members: str | bytes) -> int:
        kept = self.sets.get(key, {})
        gone = 0
        for member in members:
            if _bytes(member) in kept:
                del kept[_bytes(member)]
                gone += 1
        if key in self.sets and not kept:
            del self.sets[key]
        return gone

    def smembers(self, key: str) -> Set[bytes]:
        return {*self.sets.get(key, ())}

    # Sorted sets.

    def zadd(self, key: str, mapping: Mapping[str | bytes, float], *, xx: bool = False) -> int:
        if xx:
            there = self.sorted_sets.get(key, {})
            there.update(
                {
                    _text(member): score
                    for member, score in mapping.items()
                    if _text(member) in there
                }
            )
            return 0
        kept = self.sorted_sets.setdefault(key, {})
        before = len(kept)
        kept.update({_text(member): score for member, score in mapping.items()})
        return len(kept) - before

    def zrem(self, key: str, *members: str | bytes) -> int:
        kept = self.sorted_sets.get(key, {})
        gone = sum(kept.pop(_text(member), None) is not None for member in members)
        if key in self.sorted_sets and not kept:
            del self.sorted_sets[key]
        return gone

    def zrange(
        self,
        key: str,
        start: float,
        end: float,
        *,
        desc: bool,
        byscore: bool,
        withscores: bool,
        offset: int | None = None,
        num: int | None = None,
    ) -> list[tuple[bytes, float]]:
        """As kombu asks it: the highest scores first, members with their scores."""
        if not (desc and byscore and withscores):
            raise NotImplementedError("only ZRANGE ... BYSCORE REV WITHSCORES")
        found: list[tuple[float, str]] = []
        for member, score in self.sorted_sets.get(key, {}).items():
            if end <= score <= start:
                insort(found, (score, member))
        found.reverse()
        if num is not None:
            found = found[offset or 0 : (offset or 0) + num]
        return [(member.encode(), score) for score, member in found]

    def publish(self, topic: str, payload: str | bytes) -> int:
        """To nobody: there are no fanout consumers."""
        return 0

    def first_of(self, keys: Iterable[str]) -> tuple[bytes, bytes] | None:
        """What BRPOP answers, without waiting."""
        for key in keys:
            value = self.rpop(key)
            if value is not None:
                return key.encode(), value
        return None


class MemoryRedis:
    """A client, as redis-py has it, of a server in memory; ``seconds`` is its clock (epoch)."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self.keys = Keys()
        self.connection: Any = _Connection()
        self._seconds = seconds
        self._refuses: Callable[[], bool] = lambda: False
        self._on_lock: OnLock = _nothing

    def observe_locks(self, on_lock: OnLock) -> None:
        """Call ``on_lock`` with the name of each lock that is taken, in the process that has it."""
        self._on_lock = on_lock

    def observe_pushes(self, on_push: OnPush) -> None:
        """Call ``on_push`` with the key of each list that something was pushed to."""
        self.keys.on_push = on_push

    def refuse_when(self, refuses: Callable[[], bool]) -> None:
        """Ask ``refuses()`` at every round trip, and raise ``ConnectionError`` where it says so."""
        self._refuses = refuses

    def _check(self) -> None:
        if self._refuses():
            raise RedisConnectionError("Connection refused (virtual)")

    def __getattr__(self, name: str) -> Callable[..., Any]:
        command = getattr(self.keys, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self._check()
            return command(*args, **kwargs)

        return call

    def time(self) -> tuple[int, int]:
        self._check()
        whole, _, part = f"{self._seconds():.6f}".partition(".")
        return int(whole), int(part)

    def pipeline(self, transaction: bool = True) -> _Pipeline:
        return _Pipeline(self)

    def transaction(self, body: Callable[[_Pipeline], None], *_watched: str) -> list[Any]:
        """Nothing else runs in between, so a watched key never changes."""
        self._check()  # for WATCH
        pipe = _Pipeline(self, immediate=True)
        body(pipe)
        return pipe.execute()

    def lock(self, name: str, timeout: float) -> VirtualLock:
        return VirtualLock(self, name, timeout, self._seconds, self._on_lock)

    def register_script(self, script: str) -> Any:
        raise NotImplementedError("the memory broker runs no Lua scripts")

    def parse_response(self, connection: Any, command_name: str, **_options: Any) -> Any:
        """The answer to the BRPOP that was sent last; ``None`` where nothing waits."""
        self._check()
        *keys, _timeout = connection.sent
        return self.keys.first_of(keys)


class _Connection:
    """Where kombu sends its BRPOP."""

    sent: tuple[Any, ...] = ()

    def send_command(self, _name: str, *args: Any) -> None:
        self.sent = args

    def disconnect(self) -> None: ...


def refuse_large(arguments: Iterable[Any]) -> None:
    """Raise what redis-py does where Redis closes the connection over an item's size."""
    if any(isinstance(each, str | bytes) and len(each) > LARGEST_ITEM for each in arguments):
        raise RedisConnectionError("Connection reset by peer (virtual)")


OnLock = Callable[[str], None]
OnPush = Callable[[str], None]


class VirtualLock:
    """redis-py's ``Lock``, whose time-out (seconds) passes by the replay's clock.

    The key's value is the instant until which it is held, so a process that is killed with the
    lock leaves it behind, in memory as on a real server.
    """

    def __init__(
        self,
        client: Any,
        name: str,
        timeout: float,
        seconds: Callable[[], float],
        on_lock: OnLock,
    ) -> None:
        self._client = client
        self._name = name
        self._timeout = timeout
        self._seconds = seconds
        self._on_lock = on_lock
        self._held_until = b""

    def acquire(self, blocking: bool = True) -> bool:
        """Take the lock if it is free; never wait."""
        held_until = self._client.get(self._name)
        if held_until is not None and float(held_until) > self._seconds():
            return False
        self._held_until = repr(self._seconds() + self._timeout).encode()
        self._client.set(self._name, self._held_until)
        self._on_lock(self._name)
        return True

    def release(self) -> None:
        """Raise ``LockNotOwnedError`` where it has expired and another process has it."""
        if self._client.get(self._name) != self._held_until:
            raise LockNotOwnedError(f"{self._name} is held by another process")
        self._client.delete(self._name)


def _nothing(_name: str) -> None: ...


class _Pipeline:
    """Commands that ``execute`` runs together, in one round trip.

    In a transaction they are answered at once until ``multi``, as redis-py's are.
    """

    def __init__(self, client: MemoryRedis, *, immediate: bool = False) -> None:
        self._client = client
        self._immediate = immediate
        self._commands: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = []

    def multi(self) -> None:
        self._immediate = False

    def execute(self) -> list[Any]:
        commands, self._commands = self._commands, []
        self._client._check()
        for _, args, _ in commands:
            refuse_large(args)
        return [call(*args, **kwargs) for call, args, kwargs in commands]

    def reset(self) -> None:
        self._commands = []

    def __enter__(self) -> _Pipeline:
        return self

    def __exit__(self, *_: object) -> None:
        self.reset()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if self._immediate:
            at_once: Callable[..., Any] = getattr(self._client, name)
            return at_once
        call = getattr(self._client.keys, name)

        def later(*args: Any, **kwargs: Any) -> _Pipeline:
            self._commands.append((call, args, kwargs))
            return self

        return later


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode()
