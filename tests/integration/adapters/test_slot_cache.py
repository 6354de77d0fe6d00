"""What is promised of a cache of slots, asked of a real Redis and of the one in memory."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Event
from time import monotonic

import pytest
import redis

from app.adapters import slot_cache
from app.adapters.slot_cache import (
    ENTRY_TTL,
    SCAN_COUNT,
    CachedSlots,
    CacheEmptiedError,
    CacheUnavailableError,
    SlotCache,
    slot_cache_from,
)
from app.settings import Settings
from scripts.live.redis_server import RedisServer
from simulations.marketplace.slot_cache import MemorySlotCache

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
ENTRY = CachedSlots(7, 5, NOON, "Europe/Berlin", {60: [NOON + timedelta(hours=1)]})
NEWER = replace(ENTRY, version=6, starts={60: []})


def on(url: str) -> AbstractContextManager[SlotCache]:
    # The broker's URL is a wrong one: that of the cache is what counts.
    return slot_cache_from(Settings(redis_url="redis://127.0.0.1:1/0", cache_url=url))


@pytest.fixture(params=["redis", "memory"])
def cache(request: pytest.FixtureRequest, broker_url: str) -> Iterator[SlotCache]:
    in_memory: AbstractContextManager[SlotCache] = nullcontext(MemorySlotCache())
    with on(broker_url) if request.param == "redis" else in_memory as opened:
        yield opened


def test_many_entries_are_read_at_once_and_who_has_none_is_left_out(cache: SlotCache) -> None:
    epoch = cache.epoch()
    entries = {number: replace(ENTRY, instructor_id=number) for number in (1, 2, 3)}
    assert cache.write(list(entries.values()), epoch=epoch) == {1, 2, 3}
    assert cache.read([3, 99, 1]) == {3: entries[3], 1: entries[1]}
    assert cache.read([]) == {}


@pytest.mark.parametrize(
    ("version", "wins"),
    [
        pytest.param(ENTRY.version - 1, False, id="older"),
        pytest.param(ENTRY.version, True, id="as new"),
        pytest.param(ENTRY.version + 1, True, id="newer"),
        pytest.param(10 * ENTRY.version, True, id="newer by a digit"),
    ],
)
def test_an_entry_is_replaced_by_one_that_is_as_new(
    cache: SlotCache, version: int, wins: bool
) -> None:
    epoch = cache.epoch()
    cache.write([ENTRY], epoch=epoch)
    second = replace(ENTRY, version=version, starts={60: []})
    written = cache.write([second, replace(ENTRY, instructor_id=8)], epoch=epoch)
    assert written == ({7, 8} if wins else {8})
    assert cache.read([7]) == {7: second if wins else ENTRY}


def test_the_epoch_lasts_until_the_cache_is_emptied(cache: SlotCache) -> None:
    epoch = cache.epoch()
    assert cache.epoch() == epoch
    _empty(cache)
    for _ in range(2):
        with pytest.raises(CacheEmptiedError):
            cache.write([ENTRY], epoch=epoch)
        with pytest.raises(CacheEmptiedError):
            cache.stamp(NOON, full=True, epoch=epoch)
        assert cache.read([7]) == {}
        assert cache.fully_refreshed_at() is None
        assert cache.epoch() != epoch


def test_deleted_entries_are_gone_and_counted(cache: SlotCache) -> None:
    cache.write([ENTRY], epoch=cache.epoch())
    assert cache.delete([7, 8]) == 1
    assert cache.delete([]) == 0
    assert cache.read([7]) == {}


def test_the_full_stamp_is_that_of_full_refreshes(cache: SlotCache) -> None:
    epoch = cache.epoch()
    assert cache.fully_refreshed_at() is None
    cache.stamp(NOON, full=True, epoch=epoch)
    cache.stamp(NOON + timedelta(minutes=5), full=False, epoch=epoch)
    assert cache.fully_refreshed_at() == NOON


def test_all_entries_are_found_whatever_else_there_is(cache: SlotCache) -> None:
    epoch = cache.epoch()
    many = [replace(ENTRY, instructor_id=number) for number in range(1, 3 * SCAN_COUNT)]
    cache.write(many, epoch=epoch)
    cache.stamp(NOON, full=True, epoch=epoch)
    pages = list(cache.instructor_ids())
    assert {each for page in pages for each in page} == {entry.instructor_id for entry in many}
    assert max(map(len, pages)) <= SCAN_COUNT


def test_a_web_process_needs_one_round_trip_for_many_and_entries_end_by_themselves(
    broker_url: str,
) -> None:
    many = [replace(ENTRY, instructor_id=number) for number in range(1, 101)]
    with on(broker_url) as cache, redis.Redis.from_url(broker_url) as client:
        cache.write(many, epoch=cache.epoch())
        found = client.mget([f"availability:{entry.instructor_id}" for entry in many])
        assert found == [slot_cache.encode(entry).encode() for entry in many]
        assert 0 < client.ttl("availability:7") <= ENTRY_TTL.total_seconds()


def test_a_page_is_written_in_two_round_trips(
    broker_url: str, round_trips: Callable[[], int]
) -> None:
    many = [replace(ENTRY, instructor_id=number) for number in range(1, 101)]
    with on(broker_url) as cache:
        epoch = cache.epoch()
        before = round_trips()
        cache.write(many, epoch=epoch)
        assert round_trips() - before == 2


def test_a_reader_never_sees_half_an_entry_or_none(broker_url: str) -> None:
    """It reads as fast as it can while an entry of two sizes is replaced."""
    long = replace(ENTRY, starts={60: [NOON + timedelta(minutes=n) for n in range(2_000)]})
    expected = {slot_cache.encode(entry).encode() for entry in (ENTRY, long)}
    over = Event()

    def read() -> set[bytes | None]:
        seen = set()
        with redis.Redis.from_url(broker_url) as client:
            while not over.is_set():
                seen.update(client.mget(["availability:7"]))
        return seen

    with on(broker_url) as cache, ThreadPoolExecutor(1) as threads:
        epoch = cache.epoch()
        cache.write([long], epoch=epoch)
        reader = threads.submit(read)
        for number in range(300):
            cache.write([(ENTRY, long)[number % 2]], epoch=epoch)
        over.set()
        assert reader.result() == expected


def test_a_stopped_redis_is_unavailable_at_once(own_redis: RedisServer) -> None:
    with on(own_redis.url) as cache:
        epoch = cache.epoch()
        own_redis.stop()
        for act in (
            cache.epoch,
            lambda: cache.write([ENTRY], epoch=epoch),
            lambda: cache.read([7]),
        ):
            with pytest.raises(CacheUnavailableError):
                act()


def test_a_hung_redis_is_unavailable_after_the_timeout(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot_cache, "TIMEOUT_SECONDS", 0.5)
    with on(own_redis.url) as cache:
        epoch = cache.epoch()
        own_redis.pause()
        started = monotonic()
        try:
            with pytest.raises(CacheUnavailableError):
                cache.write([ENTRY], epoch=epoch)
        finally:
            own_redis.resume()
        assert monotonic() - started < 3


def _empty(cache: SlotCache) -> None:
    if isinstance(cache, MemorySlotCache):
        cache.lose_everything()
    else:
        cache._client.flushdb()
