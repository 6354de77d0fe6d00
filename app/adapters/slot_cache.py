"""Free slots where a web process finds them: docs/availability-cache.md has the format."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Protocol

import redis
from redis.exceptions import RedisError

from app import db, entropy
from app.adapters.redis_connection import reason, redis_client
from app.domain.errors import TransientError
from app.settings import Settings

PREFIX = "availability:"
REFRESHED_AT_KEY = f"{PREFIX}refreshed_at"
FULLY_REFRESHED_AT_KEY = f"{PREFIX}fully_refreshed_at"
EPOCH_KEY = f"{PREFIX}epoch"

ENTRY_TTL = timedelta(hours=3)
"""Three full refreshes: what none of them renews is dead."""

TIMEOUT_SECONDS = 5.0
SCAN_COUNT = 500


class CacheUnavailableError(TransientError):
    """Redis did not do what it was asked."""


class CacheEmptiedError(CacheUnavailableError):
    """Redis has lost its data since the refresh began."""


@dataclass(frozen=True)
class CachedSlots:
    instructor_id: int
    version: int
    """How many changes of the instructor's bookings and windows are in it, at least."""
    computed_at: datetime
    time_zone: str
    starts: Mapping[int, Sequence[datetime]]
    """When lessons may start, in UTC and in order, by their length in minutes."""


class SlotCache(Protocol):
    """One entry for each instructor. Its methods raise ``CacheUnavailableError``."""

    def epoch(self) -> str:
        """The name of the time since the cache was last empty."""
        ...

    def write(self, entries: Sequence[CachedSlots], *, epoch: str) -> set[int]:
        """Replace entries, each as a whole; whose were written.

        Not written are those for which an entry of a higher version is there. Raises
        ``CacheEmptiedError`` where the ``epoch`` is over: then nobody remembers whether
        there was one.
        """
        ...

    def read(self, instructor_ids: Sequence[int]) -> dict[int, CachedSlots]:
        """The entries that there are."""
        ...

    def instructor_ids(self) -> Iterator[list[int]]:
        """Whose entries there are, in pages; one that comes or goes meanwhile may be missed."""
        ...

    def delete(self, instructor_ids: Collection[int]) -> int:
        """Delete entries; how many there were."""
        ...

    def fully_refreshed_at(self) -> datetime | None:
        """The start of the last full refresh that came to its end."""
        ...

    def stamp(self, refreshed_at: datetime, *, full: bool, epoch: str) -> None:
        """Note the start of a refresh that has come to its end.

        Raises ``CacheEmptiedError`` where what it wrote is gone.
        """
        ...


def key(instructor_id: int) -> str:
    return f"{PREFIX}{instructor_id}"


def encode(entry: CachedSlots) -> str:
    # The script below looks for the version at the beginning.
    return json.dumps(
        {
            "version": entry.version,
            "computed_at": _written(entry.computed_at),
            "time_zone": entry.time_zone,
            "slots": {
                str(minutes): [_written(start) for start in starts]
                for minutes, starts in entry.starts.items()
            },
        },
        separators=(",", ":"),
    )


def decode(instructor_id: int, text: str | bytes) -> CachedSlots:
    read = json.loads(text)
    return CachedSlots(
        instructor_id=instructor_id,
        version=read["version"],
        computed_at=datetime.fromisoformat(read["computed_at"]),
        time_zone=read["time_zone"],
        starts={
            int(minutes): [datetime.fromisoformat(start) for start in starts]
            for minutes, starts in read["slots"].items()
        },
    )


def _written(instant: datetime) -> str:
    return instant.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


# Whoever computed first may write last: only Redis itself can compare and set. The version
# alone is read, not the whole entry, which may be long.
WRITE_UNLESS_NEWER = """
if redis.call('GET', KEYS[2]) ~= ARGV[4] then
    return -1
end
local version = string.match(redis.call('GETRANGE', KEYS[1], 0, 40), '^{"version":(%d+),')
if version and tonumber(version) > tonumber(ARGV[2]) then
    return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[3])
return 1
"""
STAMP = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return -1
end
for position = 2, #KEYS do
    redis.call('SET', KEYS[position], ARGV[2])
end
return 1
"""
EMPTIED = -1


class RedisSlotCache:
    """``SlotCache`` on Redis, in as few round trips as there can be."""

    def __init__(self, client: "redis.Redis"):
        self._client = client
        self._write = client.register_script(WRITE_UNLESS_NEWER)
        self._stamp = client.register_script(STAMP)

    def epoch(self) -> str:
        proposed = f"{entropy.rng().getrandbits(64):016x}"
        with _answers(), self._client.pipeline(transaction=False) as pipe:
            pipe.set(EPOCH_KEY, proposed, nx=True)
            pipe.get(EPOCH_KEY)
            return str(pipe.execute()[1])

    def write(self, entries: Sequence[CachedSlots], *, epoch: str) -> set[int]:
        ttl = round(ENTRY_TTL.total_seconds())
        with _answers(), self._client.pipeline(transaction=False) as pipe:
            for entry in entries:
                self._write(
                    keys=[key(entry.instructor_id), EPOCH_KEY],
                    args=[encode(entry), str(entry.version), str(ttl), epoch],
                    client=pipe,
                )
            answers = pipe.execute()
        if EMPTIED in answers:
            raise CacheEmptiedError("Redis was emptied during a refresh")
        return {entry.instructor_id for entry, was in zip(entries, answers, strict=True) if was}

    def read(self, instructor_ids: Sequence[int]) -> dict[int, CachedSlots]:
        if not instructor_ids:
            return {}
        with _answers():
            found = self._client.mget([key(each) for each in instructor_ids])
        return {
            each: decode(each, text)
            for each, text in zip(instructor_ids, found, strict=True)
            if text is not None
        }

    def instructor_ids(self) -> Iterator[list[int]]:
        with _answers():
            found = self._client.scan_iter(match=f"{PREFIX}[0-9]*", count=SCAN_COUNT)
            while page := [int(each.removeprefix(PREFIX)) for each in islice(found, SCAN_COUNT)]:
                yield page

    def delete(self, instructor_ids: Collection[int]) -> int:
        if not instructor_ids:
            return 0
        with _answers():
            return self._client.unlink(*map(key, instructor_ids))

    def fully_refreshed_at(self) -> datetime | None:
        with _answers():
            text = self._client.get(FULLY_REFRESHED_AT_KEY)
        return None if text is None else datetime.fromisoformat(str(text))

    def stamp(self, refreshed_at: datetime, *, full: bool, epoch: str) -> None:
        keys = [EPOCH_KEY, REFRESHED_AT_KEY, *([FULLY_REFRESHED_AT_KEY] if full else [])]
        with _answers():
            answer = self._stamp(keys=keys, args=[epoch, _written(refreshed_at)])
        if answer == EMPTIED:
            raise CacheEmptiedError("Redis was emptied during a refresh")


@contextmanager
def slot_cache_from(settings: Settings) -> Iterator[SlotCache]:
    """The cache of these settings; its connections are closed at the end."""
    with redis_client(
        settings.cache, settings, timeout=TIMEOUT_SECONDS, decode_responses=True
    ) as client:
        yield RedisSlotCache(client)


@contextmanager
def _answers() -> Iterator[None]:
    db.refuse_network_in_transaction()
    try:
        yield
    except RedisError as error:
        raise CacheUnavailableError(f"Redis: {reason(error)}") from error
