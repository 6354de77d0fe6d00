import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

import pytest
from sqlalchemy import Engine, delete, select, text, update
from sqlalchemy.orm import Session

from app import db
from app.models import BeatDefinition, BeatEntry, OutboxEntry
from app.outbox.schedule import (
    ABSENT_AFTER,
    CLOCK_STEP,
    LATE,
    MICROSECOND,
    MOST_CAUGHT_UP,
    MOST_CLOCK_ERROR,
    CatchUp,
    ClockOffError,
    PeriodicEntry,
    Seen,
    advance,
    confirm_clock,
    in_force,
    may_replace,
    next_step,
    remembered,
    sign,
    watch,
)
from tests.database import on_postgresql
from tests.fakes import FakeBroker, FakeClock

HOUR = timedelta(hours=1)
TASK = "app.tasks.bookings.send_due_reminders"


def on_the_hour(after: datetime) -> datetime:
    return after.replace(minute=0, second=0, microsecond=0) + HOUR


def hourly(schedule_hash: str = "hourly", **options: Any) -> PeriodicEntry:
    options = {"next_due": on_the_hour, **options}
    return PeriodicEntry("reminders", TASK, schedule_hash, **options)


def dues(broker: FakeBroker) -> list[datetime]:
    """Of each published run; those that were planned together in their order."""
    rounds = groupby(broker.pushed, key=lambda message: message.published_at)
    return [due for _, together in rounds for due in sorted(m.due_instant for m in together)]


class Beat:
    """One beat: reads what is remembered, then advances it; the two can be torn apart."""

    def __init__(self, now: FakeClock) -> None:
        self.now = now

    def read(self) -> Seen | None:
        with db.reading() as session:
            return remembered(session).get("reminders")

    def write(self, seen: Seen | None, entry: PeriodicEntry | None = None) -> bool:
        chosen = entry or hourly()
        step = next_step(chosen, seen, self.now.now)
        if step is None:
            return False
        with db.transaction() as session:
            return bool(advance(session, chosen, seen, step))

    def sign(self, entry: PeriodicEntry) -> None:
        with db.transaction() as session:
            sign(session, [(entry, self.now.now)], at=self.now.now, host="here")

    def tick(self, entry: PeriodicEntry | None = None) -> bool:
        return self.write(self.read(), entry)


def test_nothing_fires_at_first_sight(database: Engine, broker: FakeBroker, now: FakeClock) -> None:
    assert not Beat(now).tick()
    assert broker.pushed == []


def test_a_due_instant_fires_once(database: Engine, broker: FakeBroker, now: FakeClock) -> None:
    beat = Beat(now)
    beat.tick()
    now.advance(minutes=59, seconds=59)
    assert not beat.tick()
    now.advance(seconds=1)
    assert [beat.tick(), beat.tick()] == [True, False]
    assert [message.task for message in broker.pushed] == [TASK]


def test_a_run_carries_the_instant_that_it_was_due_however_late_it_is(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    beat = Beat(now)
    beat.tick()
    due = now.now + HOUR
    now.advance(hours=1, minutes=40)
    beat.tick()
    assert dues(broker) == [due]


def test_two_beats_that_read_the_same_fire_once(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    one, other = Beat(now), Beat(now)
    one.tick()
    now.advance(hours=1)
    read_by_one, read_by_other = one.read(), other.read()
    assert [one.write(read_by_one), other.write(read_by_other)] == [True, False]
    assert len(broker.pushed) == 1


def test_several_missed_instants_make_one_run(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    beat = Beat(now)
    beat.tick()
    now.advance(hours=7, minutes=10)
    assert [beat.tick(), beat.tick()] == [True, False]
    now.advance(minutes=50)
    assert beat.tick()


def test_each_missed_instant_makes_a_run_where_the_entry_says_so(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    beat, each = Beat(now), hourly(catch_up=CatchUp.EACH)
    beat.tick(each)
    started = now.now
    now.advance(hours=3, minutes=10)
    assert [beat.tick(each), beat.tick(each)] == [True, False]
    assert dues(broker) == [started + hours * HOUR for hours in (1, 2, 3)]


@pytest.mark.parametrize("too_many", [0, 1, 24 * 365])
def test_of_too_many_missed_instants_the_latest_are_made_up_for_and_the_rest_is_logged(
    database: Engine,
    broker: FakeBroker,
    now: FakeClock,
    caplog: pytest.LogCaptureFixture,
    too_many: int,
) -> None:
    beat, each = Beat(now), hourly(catch_up=CatchUp.EACH)
    beat.tick(each)
    started = now.now
    now.advance(hours=MOST_CAUGHT_UP + too_many)
    assert [beat.tick(each), beat.tick(each)] == [True, False]
    first = too_many + 1
    assert dues(broker) == [started + (first + n) * HOUR for n in range(MOST_CAUGHT_UP)]
    dropped = f"from {started + HOUR} until before {started + first * HOUR} are dropped"
    assert (dropped in caplog.text) is (too_many > 0)


@pytest.mark.parametrize(("late", "runs"), [(LATE, 1), (LATE + MICROSECOND, 0)])
def test_an_instant_that_was_missed_is_left_out_where_the_entry_says_so(
    database: Engine, broker: FakeBroker, now: FakeClock, late: timedelta, runs: int
) -> None:
    beat, skip = Beat(now), hourly(catch_up=CatchUp.SKIP)
    beat.tick(skip)
    due = now.now + 3 * HOUR
    now.now = due + late
    beat.tick(skip)
    beat.tick(skip)
    assert dues(broker) == [due] * runs
    now.now = due + HOUR
    assert beat.tick(skip), "the next one is on time"


@pytest.mark.parametrize("catch_up", CatchUp)
def test_a_year_of_missed_minutes_is_not_walked_through(
    database: Engine, broker: FakeBroker, now: FakeClock, catch_up: CatchUp
) -> None:
    asked = []

    def every_minute(after: datetime) -> datetime:
        asked.append(after)
        return after.replace(second=0, microsecond=0) + timedelta(minutes=1)

    beat, minutely = Beat(now), hourly(next_due=every_minute, catch_up=catch_up)
    beat.tick(minutely)
    now.advance(days=365, seconds=1)
    assert beat.tick(minutely)
    assert dues(broker)[-1] == now.now - timedelta(seconds=1)
    assert len(asked) < 100 * len(broker.pushed)


def test_a_run_has_the_entrys_arguments_queue_and_priority(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    beat = Beat(now)
    entry = hourly(args=(1,), kwargs={"x": 2}, queue="analytics", priority=9)
    beat.tick(entry)
    now.advance(hours=1)
    beat.tick(entry)
    (message,) = broker.pushed
    assert (list(message.args), message.kwargs) == ([1], {"x": 2})
    assert (message.queue, message.priority) == ("analytics", 9)


def test_a_purged_row_starts_anew(database: Engine, broker: FakeBroker, now: FakeClock) -> None:
    beat = Beat(now)
    beat.tick()
    now.advance(hours=3)
    with db.transaction() as session:
        session.execute(delete(BeatEntry))
    assert not beat.tick()
    now.advance(hours=1)
    assert beat.tick()


def test_a_row_that_was_purged_between_reading_and_writing_fires_nothing(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    beat = Beat(now)
    beat.tick()
    now.advance(hours=1)
    seen = beat.read()
    with db.transaction() as session:
        session.execute(delete(BeatEntry))
    assert not beat.write(seen)
    assert broker.pushed == []


def test_a_purged_outbox_fires_no_instant_again(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    beat = Beat(now)
    beat.tick()
    now.advance(hours=1)
    beat.tick()
    with db.transaction() as session:
        session.execute(delete(OutboxEntry))
    assert not beat.tick()


def test_beats_whose_clocks_are_seconds_apart_fire_once(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    ahead, behind = Beat(now), Beat(FakeClock(now.now - timedelta(seconds=2)))
    ahead.tick()
    behind.tick()
    due = [now.now + hours * HOUR for hours in range(1, 4)]
    for instant in due:
        for passed in range(-1, 4):
            ahead.now.now = instant + timedelta(seconds=passed)
            behind.now.now = ahead.now.now - timedelta(seconds=2)
            behind.tick()
            ahead.tick()
    assert dues(broker) == due


def test_a_changed_schedule_goes_on_from_where_the_old_one_was_kept(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    beat, each = Beat(now), hourly(catch_up=CatchUp.EACH)
    beat.tick(each)
    beat.sign(each)
    now.advance(hours=3)
    changed = hourly("changed", catch_up=CatchUp.EACH)
    assert beat.tick(changed)
    assert dues(broker) == [now.now - 2 * HOUR, now.now - HOUR, now.now]
    assert not beat.tick(changed)


def test_a_schedule_of_an_older_version_is_taken_as_kept_until_a_moment_ago(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    """It gave no sign of life: what it did not keep may be lost, what it kept is not doubled."""
    beat, each = Beat(now), hourly(catch_up=CatchUp.EACH)
    beat.tick(each)
    now.advance(hours=3, seconds=ABSENT_AFTER.total_seconds())
    assert beat.tick(hourly("changed", catch_up=CatchUp.EACH))
    assert dues(broker) == [now.now - ABSENT_AFTER]


def seen_of(entry: PeriodicEntry, now: datetime, **of_its_definition: Any) -> Seen:
    return Seen(entry.schedule_hash, now, entry.definition, **of_its_definition)


def test_a_definition_of_which_only_the_arguments_differ_is_another_one(now: FakeClock) -> None:
    one, other = hourly(definition="a"), hourly(definition="b")
    assert in_force(one, seen_of(one, now.now))
    assert not in_force(one, seen_of(other, now.now))
    assert in_force(one, seen_of(other, now.now)._replace(definition=None)), "an older version's"


def test_a_definition_that_was_replaced_waits_until_no_beat_has_kept_the_newer_one(
    now: FakeClock,
) -> None:
    newer = hourly("newer", definition="b")
    watched = None
    sign = now.now
    while now.now < sign + 2 * ABSENT_AFTER:
        seen = seen_of(newer, sign, seen_at=sign)
        watched = watch(seen, watched, now.now)
        assert may_replace(seen, watched) is (now.now - sign >= ABSENT_AFTER)
        now.advance(seconds=1)


@pytest.mark.parametrize("gap", [ABSENT_AFTER, timedelta(hours=1), timedelta(seconds=-1)])
def test_after_an_outage_the_watch_begins_again(now: FakeClock, gap: timedelta) -> None:
    """Nobody could give a sign of life: that none is there says nothing."""
    seen = seen_of(hourly("newer", definition="b"), now.now, seen_at=now.now)
    watched = watch(seen, None, now.now)
    now.now += gap
    watched = watch(seen, watched, now.now)
    assert not may_replace(seen, watched)
    for _ in range(3):
        now.now += ABSENT_AFTER / 2
        watched = watch(seen, watched, now.now)
    assert may_replace(seen, watched)


def test_a_watch_goes_on_with_the_longest_pause_between_two_ticks(now: FakeClock) -> None:
    """``PUMP_INTERVAL_SECONDS`` may be 60."""
    seen = seen_of(hourly("newer", definition="b"), now.now)
    watched = None
    for _ in range(4):
        watched = watch(seen, watched, now.now)
        now.advance(seconds=61)
    assert watched is not None
    assert may_replace(seen, watched)


def test_a_sign_of_life_from_the_future_says_nothing(now: FakeClock) -> None:
    """The broker's clock was wrong: a beat that lives signs again by the right one."""
    seen = seen_of(hourly("newer", definition="b"), now.now, seen_at=now.now + timedelta(days=1))
    watched = watch(seen, None, now.now)
    for _ in range(2):
        now.now += ABSENT_AFTER / 2
        watched = watch(seen, watched, now.now)
    assert may_replace(seen, watched)


def test_another_definition_is_watched_anew(now: FakeClock) -> None:
    one, other = (seen_of(hourly(name, definition=name), now.now) for name in ("b", "c"))
    watched = watch(one, None, now.now)
    for _ in range(4):
        now.now += ABSENT_AFTER / 2
        watched = watch(one, watched, now.now)
    assert may_replace(one, watched)
    assert not may_replace(other, watch(other, watched, now.now))


def test_what_was_read_before_another_definition_came_into_force_is_not_taken(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    """Also where only the arguments differ and the last due instant is the same."""
    beat, old, new = Beat(now), hourly(definition="a"), hourly(definition="b")
    beat.tick(old)
    beat.sign(old)
    read_by_the_old_one = beat.read()
    now.advance(seconds=10)
    beat.tick(new)
    now.advance(hours=1)
    assert not beat.write(read_by_the_old_one, old)
    seen = beat.read()
    assert seen is not None
    assert in_force(new, seen)


def test_an_entry_that_an_older_version_fired_gets_its_next_due_instant_again(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    """Else it would seem overdue from the instant on that the older version fired."""
    beat = Beat(now)
    beat.tick()
    started = now.now
    now.advance(hours=1)
    with db.transaction() as session:
        session.execute(update(BeatEntry).values(last_due=now.now))
    beat.tick()
    assert broker.pushed == []
    seen = beat.read()
    assert seen is not None
    assert seen.next_due == started + 2 * HOUR


def test_a_run_is_remembered_with_its_entry_of_the_outbox(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    beat = Beat(now)
    beat.tick()
    now.advance(hours=1, seconds=2)
    beat.tick()
    with db.reading() as session:
        entry = session.get_one(BeatEntry, "reminders")
    assert (entry.last_run_due, entry.last_run_at) == (now.now - timedelta(seconds=2), now.now)
    assert entry.last_run_id == broker.pushed[0].id


def test_what_is_left_out_is_not_a_run(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    beat, skip = Beat(now), hourly(catch_up=CatchUp.SKIP)
    beat.tick(skip)
    now.advance(hours=1, minutes=30)
    beat.tick(skip)
    with db.reading() as session:
        entry = session.get_one(BeatEntry, "reminders")
    assert (entry.last_run_at, entry.next_due) == (None, now.now + timedelta(minutes=30))


def test_a_clock_that_was_far_ahead_does_not_silence_an_entry(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    beat = Beat(now)
    beat.tick()
    now.advance(hours=10)
    assert beat.tick()
    now.advance(hours=-9)
    assert not beat.tick()
    now.advance(hours=1)
    assert beat.tick()


def test_instants_that_a_clock_far_ahead_has_fired_fire_again_in_their_own_time(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    """Too early a run may have found nothing yet; that it comes twice does no harm."""
    beat, each = Beat(now), hourly(catch_up=CatchUp.EACH)
    beat.tick(each)
    started = now.now
    now.advance(hours=3)
    beat.tick(each)
    now.now = started
    beat.tick(each)
    now.advance(hours=2)
    beat.tick(each)
    assert dues(broker) == [started + hours * HOUR for hours in (1, 2, 3, 1, 2)]


def test_a_clock_that_stepped_back_a_little_fires_no_instant_twice(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    beat = Beat(now)
    beat.tick()
    now.advance(hours=1)
    assert beat.tick()
    now.advance(seconds=-CLOCK_STEP.total_seconds())
    assert not beat.tick()
    now.advance(seconds=CLOCK_STEP.total_seconds())
    assert not beat.tick()


def test_a_crash_between_the_two_writes_leaves_neither(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    beat = Beat(now)
    beat.tick()
    now.advance(hours=1)
    try:
        seen = beat.read()
        step = next_step(hourly(), seen, now.now)
        assert step is not None
        with db.transaction() as session:
            assert advance(session, hourly(), seen, step) == 1
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert broker.pushed == []
    assert beat.tick()


@pytest.mark.parametrize("off", [MOST_CLOCK_ERROR, -MOST_CLOCK_ERROR])
def test_a_clock_that_is_off_the_brokers_by_half_a_clock_step_is_confirmed_and_by_more_is_not(
    now: FakeClock, off: timedelta
) -> None:
    """Two that are confirmed are a clock step apart at most: neither takes what the other
    remembers for a mistake."""
    confirm_clock(now.now + off, broker_now=now.now)
    further = off + MICROSECOND if off > timedelta(0) else off - MICROSECOND
    with pytest.raises(ClockOffError, match=rf"is \{off.total_seconds():+.0f} s off"):
        confirm_clock(now.now + further, broker_now=now.now)


@on_postgresql
@pytest.mark.parametrize("failing", ["a", "b"])
def test_all_beats_lock_the_entries_that_they_sign_in_one_order(
    database: Engine, now: FakeClock, failing: str
) -> None:
    """In two orders, PostgreSQL would end one of two beats with a deadlock."""
    entries = [PeriodicEntry(name, TASK, "x", on_the_hour, "x") for name in ("a", "b")]
    signs = [(entry, None if entry.name == failing else now.now) for entry in entries]

    def beat() -> None:
        with db.transaction() as session:
            sign(session, signs, at=now.now, host="here")

    beat()
    lock = select(BeatDefinition.name).with_for_update(nowait=True)
    with ThreadPoolExecutor() as threads, Session(database) as other:
        other.execute(lock.where(BeatDefinition.name == "a"))
        waits = threads.submit(beat)
        deadline = time.monotonic() + 10
        with database.connect() as watching:
            while not watching.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")):
                assert time.monotonic() < deadline, "the beat does not wait for the first entry"
                watching.rollback()
        other.execute(lock.where(BeatDefinition.name == "b"))
        other.rollback()
        waits.result(timeout=10)
