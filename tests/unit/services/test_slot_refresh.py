from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine, select, update

from app import db
from app.adapters.slot_cache import CacheEmptiedError, CacheUnavailableError
from app.domain.availability import WeeklyWindow
from app.models import Role, Service, StaleAvailability, User
from app.services import availability, bookings
from app.services.availability import free_slots, mark_stale
from app.services.slot_refresh import FULL_EVERY, RefreshSummary, refresh
from simulations.marketplace.slot_cache import MemorySlotCache
from tests.builders import NOON, a_service, a_student, an_instructor
from tests.fakes import FakeClock

TOMORROW = NOON + timedelta(days=1)
HOUR = timedelta(hours=1)
TICK = timedelta(microseconds=1)


@pytest.fixture
def now(database: Engine) -> FakeClock:
    return FakeClock(NOON)


@pytest.fixture
def cache() -> MemorySlotCache:
    return MemorySlotCache()


def open_marketplace(instructors: int = 1) -> list[int]:
    with db.transaction() as session:
        return [a_service(session).instructor_id for _ in range(instructors)]


def book(instructor_id: int, starts_at: datetime = TOMORROW) -> int:
    with db.transaction() as session:
        service_id = session.scalars(
            select(Service.id).where(Service.instructor_id == instructor_id)
        ).one()
        return bookings.book(
            session,
            student_id=a_student(session).id,
            service_id=service_id,
            starts_at=starts_at,
            now=NOON,
        ).id


def stale() -> list[int]:
    with db.reading() as session:
        return list(
            session.scalars(
                select(StaleAvailability.instructor_id).where(
                    StaleAvailability.changes > StaleAvailability.cached_changes
                )
            )
        )


def is_right(cache: MemorySlotCache, instructor_id: int) -> bool:
    """Whether the entry is what the tables say now."""
    entry = cache.read([instructor_id])[instructor_id]
    with db.reading() as session:
        computed = free_slots(session, [instructor_id], now=NOON)[instructor_id]
    return entry.starts == computed.starts and entry.time_zone == computed.time_zone


def test_the_first_refresh_writes_every_instructor(now: FakeClock, cache: MemorySlotCache) -> None:
    ids = open_marketplace(3)
    summary = refresh(cache, clock=now, page=2)
    assert summary == RefreshSummary(full=True, written=3, superseded=0, deleted=0)
    assert set(cache.entries) == set(ids)
    assert all(is_right(cache, each) for each in ids)


def test_later_ones_write_those_who_changed_and_no_others(
    now: FakeClock, cache: MemorySlotCache
) -> None:
    one, other = open_marketplace(2)
    refresh(cache, clock=now)
    book(one)
    del cache.entries[other]
    assert refresh(cache, clock=now) == RefreshSummary(
        full=False, written=1, superseded=0, deleted=0
    )
    assert set(cache.entries) == {one}
    assert is_right(cache, one)
    assert refresh(cache, clock=now).written == 0


def test_cancelling_brings_a_slot_back(now: FakeClock, cache: MemorySlotCache) -> None:
    (instructor_id,) = open_marketplace()
    booking_id = book(instructor_id)
    refresh(cache, clock=now)
    assert TOMORROW not in cache.read([instructor_id])[instructor_id].starts[60]
    with db.transaction() as session:
        bookings.cancel(session, booking_id, now=NOON)
    refresh(cache, clock=now)
    assert TOMORROW in cache.read([instructor_id])[instructor_id].starts[60]


def test_what_was_rolled_back_makes_nothing_stale(now: FakeClock, cache: MemorySlotCache) -> None:
    (instructor_id,) = open_marketplace()
    with pytest.raises(KeyError), db.transaction() as session:
        mark_stale(session, instructor_id, now=NOON)
        raise KeyError
    assert stale() == []


@pytest.mark.parametrize(
    ("passed", "full"),
    [
        (FULL_EVERY - TICK, False),
        (FULL_EVERY, True),
        (-TICK, True),  # the clock was wrong when it was stamped
    ],
)
def test_all_are_written_again_each_hour(
    now: FakeClock, cache: MemorySlotCache, passed: timedelta, full: bool
) -> None:
    open_marketplace(2)
    refresh(cache, clock=now)
    now.now += passed
    assert refresh(cache, clock=now).full is full


def test_all_are_written_again_when_redis_was_emptied(
    now: FakeClock, cache: MemorySlotCache
) -> None:
    ids = open_marketplace(2)
    refresh(cache, clock=now)
    cache.lose_everything()
    assert refresh(cache, clock=now).full
    assert set(cache.entries) == set(ids)


def test_a_full_refresh_can_be_asked_for(now: FakeClock, cache: MemorySlotCache) -> None:
    open_marketplace(2)
    refresh(cache, clock=now)
    assert refresh(cache, clock=now, full=True).written == 2


def test_who_is_no_instructor_any_more_loses_the_entry_in_a_full_refresh(
    now: FakeClock, cache: MemorySlotCache
) -> None:
    gone, stays = open_marketplace(2)
    refresh(cache, clock=now)
    with db.transaction() as session:
        session.execute(update(User).where(User.id == gone).values(role=Role.STUDENT))
    assert refresh(cache, clock=now).deleted == 0
    assert refresh(cache, clock=now, full=True).deleted == 1
    assert set(cache.entries) == {stays}


def test_a_stamp_tells_when_the_last_refresh_began(now: FakeClock, cache: MemorySlotCache) -> None:
    (instructor_id,) = open_marketplace()
    cache.after_write = lambda: now.advance(minutes=2)
    refresh(cache, clock=now)
    assert cache.stamps == {"any": NOON, "full": NOON}
    now.advance(minutes=5)
    book(instructor_id)
    refresh(cache, clock=now)
    assert cache.stamps == {"any": NOON + timedelta(minutes=7), "full": NOON}


def test_a_cache_that_is_away_leaves_the_changed_stale_and_no_stamp(
    now: FakeClock, cache: MemorySlotCache
) -> None:
    (instructor_id,) = open_marketplace()
    refresh(cache, clock=now)
    now.advance(minutes=5)
    book(instructor_id)
    cache.down = True
    with pytest.raises(CacheUnavailableError):
        refresh(cache, clock=now)
    assert stale() == [instructor_id]
    assert cache.stamps["any"] == NOON


def test_a_death_between_the_writing_and_the_mark_leaves_the_instructor_stale(
    now: FakeClock, cache: MemorySlotCache
) -> None:
    (instructor_id,) = open_marketplace()
    book(instructor_id)

    def die() -> None:
        raise KeyboardInterrupt

    cache.after_write = die
    with pytest.raises(KeyboardInterrupt):
        refresh(cache, clock=now)
    assert stale() == [instructor_id]


def test_a_change_while_the_slots_are_written_leaves_the_instructor_stale(
    now: FakeClock, cache: MemorySlotCache
) -> None:
    (instructor_id,) = open_marketplace()
    book(instructor_id)
    cache.before_write = lambda: once(cache, lambda: book(instructor_id, TOMORROW + HOUR))
    refresh(cache, clock=now)
    assert stale() == [instructor_id]
    refresh(cache, clock=now)
    assert is_right(cache, instructor_id)
    assert stale() == []


def test_of_two_refreshes_at_once_the_one_that_read_first_does_not_have_the_last_word(
    now: FakeClock, cache: MemorySlotCache
) -> None:
    (instructor_id,) = open_marketplace()
    book(instructor_id)

    def overtake() -> None:
        book(instructor_id, TOMORROW + HOUR)
        assert refresh(cache, clock=now, full=True).written == 1

    cache.before_write = lambda: once(cache, overtake)
    summary = refresh(cache, clock=now)
    assert (summary.written, summary.superseded) == (0, 1)
    assert is_right(cache, instructor_id)
    assert stale() == []


def test_an_instructor_marked_and_cached_and_marked_again_is_not_taken_for_the_first_mark(
    now: FakeClock, cache: MemorySlotCache
) -> None:
    (instructor_id,) = open_marketplace()
    refresh(cache, clock=now)
    book(instructor_id)

    def overtake_and_change_again() -> None:
        refresh(cache, clock=now)
        book(instructor_id, TOMORROW + HOUR)

    cache.after_write = lambda: once(cache, overtake_and_change_again)
    refresh(cache, clock=now)
    assert stale() == [instructor_id]


def test_a_full_refresh_during_which_redis_is_emptied_does_not_pass_for_one(
    now: FakeClock, cache: MemorySlotCache
) -> None:
    open_marketplace(2)
    cache.after_write = lambda: once(cache, cache.lose_everything)
    with pytest.raises(CacheEmptiedError):
        refresh(cache, clock=now, page=1)
    assert refresh(cache, clock=now) == RefreshSummary(
        full=True, written=2, superseded=0, deleted=0
    )


def test_a_refresh_that_read_before_redis_was_emptied_writes_nothing_after_it(
    now: FakeClock, cache: MemorySlotCache
) -> None:
    (instructor_id,) = open_marketplace()
    refresh(cache, clock=now)
    book(instructor_id)

    def change_and_empty() -> None:
        book(instructor_id, TOMORROW + HOUR)
        refresh(cache, clock=now)
        cache.lose_everything()

    cache.before_write = lambda: once(cache, change_and_empty)
    with pytest.raises(CacheEmptiedError):
        refresh(cache, clock=now)
    assert cache.entries == {}


def once(cache: MemorySlotCache, act: Callable[[], object]) -> None:
    cache.before_write = cache.after_write = lambda: None
    act()


def test_windows_are_refreshed_too(now: FakeClock, cache: MemorySlotCache) -> None:
    with db.transaction() as session:
        instructor_id = a_service(
            session, instructor=an_instructor(session, windows=[])
        ).instructor_id
    refresh(cache, clock=now)
    assert cache.read([instructor_id])[instructor_id].starts == {60: []}
    with db.transaction() as session:
        availability.set_weekly_windows(
            session, instructor_id, [WeeklyWindow(0, 0, 1440)], now=NOON
        )
    refresh(cache, clock=now)
    assert cache.read([instructor_id])[instructor_id].starts[60] != []
