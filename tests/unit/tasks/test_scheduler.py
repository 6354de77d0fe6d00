"""One tick of beat: what it enqueues and publishes, and how it waits out an outage."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.beat import BeatLazyFunc
from celery.schedules import crontab, schedule
from sqlalchemy import Engine, event, select, text
from sqlalchemy.exc import OperationalError

from app import db, outbox
from app.models import BeatDefinition, BeatEntry, OutboxEntry
from app.outbox.enqueue import enqueue_run
from app.outbox.publish import BATCH
from app.outbox.pump import HOOK_GRACE
from app.settings import load_settings
from app.tasks import celery_app
from app.tasks.scheduler import LONGEST_PAUSE_SECONDS, OutboxScheduler
from tests.database import on_sqlite
from tests.fakes import FakeBroker, FakeClock

INTERVAL = load_settings().pump_interval_seconds
TASK = "app.tasks.bookings.send_due_reminders"
BEGUN_BEFORE_THE_SECOND_ENTRY = 3
"""Transactions: what is remembered, the first entry, and its publication."""

Schedule = dict[str, dict[str, Any]]


@pytest.fixture
def timetable() -> Iterator[Schedule]:
    """The schedule in force: one entry at every full minute."""
    entries: Schedule = {"reminders": {"task": TASK, "schedule": crontab()}}
    in_force_before = celery_app.conf.beat_schedule
    celery_app.conf.beat_schedule = entries
    yield entries
    celery_app.conf.beat_schedule = in_force_before


@pytest.fixture(autouse=True)
def _no_redis(broker: FakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.tasks.scheduler.RedisBroker", lambda app, timeout: broker)


@pytest.fixture
def beat(timetable: Schedule) -> OutboxScheduler:
    return OutboxScheduler(app=celery_app)


@pytest.fixture
def no_database(database: Engine, tmp_path: Path) -> Iterator[None]:
    """A database that cannot be opened, for as long as it is not put back."""
    away = db.create_database_engine(f"sqlite:///{tmp_path}/not/there.sqlite3")
    db.use(away)
    yield
    db.use(database)


def planned() -> list[str]:
    with db.reading() as session:
        return list(session.scalars(select(OutboxEntry.task)))


def last_due() -> dict[str, Any]:
    with db.reading() as session:
        return {entry.name: entry.last_due for entry in session.scalars(select(BeatEntry))}


def test_making_it_touches_neither_database_nor_broker(
    no_database: None, broker: FakeBroker, timetable: Schedule
) -> None:
    """Beat makes two: the lazy one is for its banner."""
    broker.down = True
    for lazy in (True, False):
        assert "outbox_entries" in OutboxScheduler(app=celery_app, lazy=lazy).info


def test_making_it_makes_no_result_backend(
    broker: FakeBroker, timetable: Schedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its import takes long enough for a SIGTERM to meet it, whose handler asks Celery for
    the scheduler: imported twice at once, it ended beat with a traceback."""

    def refuse(_app: object) -> None:
        raise AssertionError("the result backend was made")

    monkeypatch.setattr(Celery, "backend", property(refuse))
    assert list(OutboxScheduler(app=celery_app).schedule) == ["reminders"]


def test_the_first_tick_remembers_every_entry_and_fires_none(
    beat: OutboxScheduler, now: FakeClock
) -> None:
    assert beat.tick() == INTERVAL
    assert (last_due(), planned()) == ({"reminders": now.now}, [])


def test_a_due_entry_is_enqueued_and_published_once(
    beat: OutboxScheduler, broker: FakeBroker, now: FakeClock
) -> None:
    beat.tick()
    now.advance(minutes=1)
    assert [beat.tick(), beat.tick()] == [INTERVAL, INTERVAL]
    assert [message.task for message in broker.pushed] == [TASK]
    assert last_due() == {"reminders": now.now}


def test_entries_with_arguments_of_their_own_carry_them(
    beat: OutboxScheduler, broker: FakeBroker, now: FakeClock, timetable: Schedule
) -> None:
    timetable["with-arguments"] = {"task": TASK, "schedule": schedule(60), "args": (1, "two")}
    fresh = OutboxScheduler(app=celery_app)
    fresh.tick()
    now.advance(minutes=1)
    fresh.tick()
    assert sorted(list(message.args) for message in broker.pushed) == [[], [1, "two"]]


def test_keyword_and_lazy_arguments_are_carried_too(
    broker: FakeBroker, now: FakeClock, timetable: Schedule
) -> None:
    timetable["reminders"] |= {
        "args": (BeatLazyFunc(lambda: now.now.minute),),
        "kwargs": {"word": "two", "minute": BeatLazyFunc(lambda: now.now.minute)},
    }
    beat = OutboxScheduler(app=celery_app)
    for _ in range(3):
        beat.tick()
        now.advance(minutes=1)
    assert [(list(message.args), message.kwargs) for message in broker.pushed] == [
        ([1], {"word": "two", "minute": 1}),
        ([2], {"word": "two", "minute": 2}),
    ]


@pytest.mark.parametrize(("policy", "runs"), [(None, 1), ("once", 1), ("each", 5), ("skip", 0)])
def test_the_option_catch_up_says_what_becomes_of_missed_instants(
    broker: FakeBroker, now: FakeClock, timetable: Schedule, policy: str | None, runs: int
) -> None:
    timetable["reminders"]["schedule"] = schedule(timedelta(minutes=10))
    timetable["reminders"]["options"] = {"catch_up": policy}
    OutboxScheduler(app=celery_app).tick()
    now.advance(minutes=55)
    OutboxScheduler(app=celery_app).tick()
    assert len(broker.pushed) == runs


def test_an_entry_that_cannot_be_enqueued_does_not_hold_up_the_others(
    broker: FakeBroker, now: FakeClock, timetable: Schedule, caplog: pytest.LogCaptureFixture
) -> None:
    timetable["broken"] = {"task": TASK, "schedule": crontab(), "args": (object(),)}
    beat = OutboxScheduler(app=celery_app)
    beat.tick()
    now.advance(minutes=1)
    assert beat.tick() == INTERVAL
    assert [message.task for message in broker.pushed] == [TASK]
    assert "beat entry broken cannot be enqueued" in caplog.text


def test_a_database_that_goes_away_in_a_tick_delays_what_was_not_written_and_doubles_nothing(
    broker: FakeBroker, now: FakeClock, timetable: Schedule, database: Engine, tmp_path: Path
) -> None:
    timetable["another"] = {"task": "app.tasks.health.health_check", "schedule": crontab()}
    beat = OutboxScheduler(app=celery_app)
    beat.tick()
    now.advance(minutes=1)
    begun = iter(range(100))

    def go_away(_connection: object) -> None:
        if next(begun) == BEGUN_BEFORE_THE_SECOND_ENTRY:
            raise OperationalError("BEGIN", {}, Exception("gone"))

    event.listen(database, "begin", go_away)
    assert 0 < beat.tick() <= INTERVAL
    assert planned() == ["app.tasks.health.health_check"]
    now.advance(seconds=5)
    assert beat.tick() == INTERVAL
    event.remove(database, "begin", go_away)
    assert sorted(planned()) == [TASK, "app.tasks.health.health_check"]


def test_two_beats_fire_once(beat: OutboxScheduler, broker: FakeBroker, now: FakeClock) -> None:
    other = OutboxScheduler(app=celery_app)
    for _ in range(5):
        beat.tick()
        other.tick()
        now.advance(minutes=1)
    assert len(broker.pushed) == 4


def test_a_beat_that_was_killed_and_started_again_catches_up_with_one_run(
    beat: OutboxScheduler, broker: FakeBroker, now: FakeClock
) -> None:
    beat.tick()
    now.advance(minutes=10, seconds=30)
    restarted = OutboxScheduler(app=celery_app)
    restarted.tick()
    restarted.tick()
    assert len(broker.pushed) == 1
    assert last_due() == {"reminders": now.now - timedelta(seconds=30)}


def test_a_changed_timetable_goes_on_from_where_the_old_one_was_kept(
    beat: OutboxScheduler, broker: FakeBroker, now: FakeClock, timetable: Schedule
) -> None:
    beat.tick()
    now.advance(minutes=12)
    timetable["reminders"]["schedule"] = crontab(minute="*/5")
    changed = OutboxScheduler(app=celery_app)
    changed.tick()
    (message,) = broker.pushed
    assert message.due_instant == now.now - timedelta(minutes=2)


def changed(timetable: Schedule, **fields: Any) -> OutboxScheduler:
    """A beat of a version in which the entry differs in these fields."""
    timetable["reminders"] |= fields
    return OutboxScheduler(app=celery_app)


def fire_every_minute(now: FakeClock, minutes: float, *beats: OutboxScheduler) -> None:
    """Let the beats tick through the minutes."""
    for _ in range(int(minutes * 6)):
        now.advance(seconds=10)
        for each in beats:
            each.tick()


@pytest.mark.parametrize(
    "fields",
    [
        {"schedule": crontab(minute="*/2")},
        {"task": "app.tasks.health.health_check"},
        {"args": (1,)},
        {"kwargs": {"x": 1}},
        {"options": {"queue": "email"}},
        {"options": {"priority": 0}},
        {"options": {"catch_up": "skip"}},
    ],
    ids=str,
)
def test_of_two_beats_whose_entries_differ_the_newer_one_fires_and_each_logs_it_once(
    beat: OutboxScheduler,
    broker: FakeBroker,
    now: FakeClock,
    timetable: Schedule,
    caplog: pytest.LogCaptureFixture,
    fields: dict[str, Any],
) -> None:
    beat.tick()
    newer = changed(timetable, **fields)
    fire_every_minute(now, 6, beat, newer)
    fire_every_minute(now, 4, newer, beat)
    dues = [message.due_instant for message in broker.pushed]
    assert dues == sorted(set(dues))
    assert len(dues) == (5 if "schedule" in fields else 10)
    first = broker.pushed[1]
    expected = {"args": [], "kwargs": {}, "task": TASK} | fields
    assert (list(first.args), first.kwargs) == (list(expected["args"]), expected["kwargs"])
    assert first.task == expected["task"]
    said = [r.message for r in caplog.records if "beat entry reminders" in r.message]
    assert len(said) == 2
    assert "replaces * * * * * US/Eastern" in said[0]
    assert "that of this beat, * * * * * US/Eastern, waits" in said[1]


def test_in_a_roll_back_the_old_definition_goes_on_where_the_newer_one_ended(
    beat: OutboxScheduler, broker: FakeBroker, now: FakeClock, timetable: Schedule
) -> None:
    timetable["reminders"]["options"] = {"catch_up": "each"}
    beat = OutboxScheduler(app=celery_app)
    beat.tick()
    newer = changed(timetable, args=("newer",))
    fire_every_minute(now, 3, newer)
    rolled_back = changed(timetable, args=())
    fire_every_minute(now, 2, newer, rolled_back)
    fire_every_minute(now, 5, rolled_back)
    dues = [message.due_instant for message in broker.pushed]
    assert dues == [now.now - n * timedelta(minutes=1) for n in reversed(range(10))]
    assert [list(message.args) for message in broker.pushed] == [["newer"]] * 5 + [[]] * 5


def test_an_old_beat_that_is_started_again_hours_later_changes_nothing(
    beat: OutboxScheduler, broker: FakeBroker, now: FakeClock, timetable: Schedule
) -> None:
    beat.tick()
    newer = changed(timetable, args=("newer",))
    newer.tick()
    fire_every_minute(now, 60, newer)
    forgotten = changed(timetable, args=())
    fire_every_minute(now, 10, forgotten, newer)
    assert {tuple(message.args) for message in broker.pushed} == {("newer",)}
    assert len(broker.pushed) == 70


def test_after_an_outage_no_beat_takes_the_definition_in_force_for_abandoned(
    beat: OutboxScheduler, broker: FakeBroker, now: FakeClock, timetable: Schedule
) -> None:
    beat.tick()
    newer = changed(timetable, args=("newer",))
    fire_every_minute(now, 3, newer, beat)
    broker.down = True
    fire_every_minute(now, 10, newer, beat)
    broker.down = False
    fire_every_minute(now, 3, beat, newer)
    assert {tuple(message.args) for message in broker.pushed} == {("newer",)}


def test_a_brokers_clock_that_was_put_back_does_not_stop_the_signs_of_life(
    beat: OutboxScheduler, broker: FakeBroker, now: FakeClock
) -> None:
    beat.tick()
    now.advance(hours=-1)
    beat.tick()
    with db.reading() as session:
        (seen_at,) = session.scalars(select(BeatDefinition.seen_at))
    assert seen_at == now.now


def test_an_entry_that_the_newer_version_lacks_is_fired_by_the_old_beat_until_it_ends(
    beat: OutboxScheduler, broker: FakeBroker, now: FakeClock, timetable: Schedule
) -> None:
    beat.tick()
    del timetable["reminders"]
    newer = OutboxScheduler(app=celery_app)
    fire_every_minute(now, 3, newer, beat)
    fire_every_minute(now, 3, newer)
    assert len(broker.pushed) == 3


def test_an_entry_that_the_newer_version_adds_starts_with_it(
    beat: OutboxScheduler, broker: FakeBroker, now: FakeClock, timetable: Schedule
) -> None:
    beat.tick()
    timetable["added"] = {"task": TASK, "schedule": crontab(), "args": ("added",)}
    newer = OutboxScheduler(app=celery_app)
    fire_every_minute(now, 3, newer, beat)
    assert sum(list(message.args) == ["added"] for message in broker.pushed) == 3
    assert len(broker.pushed) == 6


def write_as_an_older_version(entry_hash: str, now: FakeClock) -> None:
    """What a beat of the version without definitions does at each tick."""
    with db.transaction() as session:
        row = session.get_one(BeatEntry, "reminders")
        if row.schedule_hash != entry_hash:
            row.schedule_hash, row.last_due = entry_hash, now.now
        else:
            minute = now.now.replace(second=0, microsecond=0)
            if row.last_due < minute:
                row.last_due = minute
                enqueue_run(session, TASK, ("older",), {}, due_instant=minute)


def test_beside_a_beat_of_an_older_version_with_another_schedule_the_entry_is_not_silent(
    beat: OutboxScheduler, broker: FakeBroker, now: FakeClock
) -> None:
    beat.tick()
    started = now.now
    for _ in range(60 * 6):
        now.advance(seconds=10)
        beat.tick()
        write_as_an_older_version("older", now)
    dues = [message.due_instant for message in broker.pushed]
    assert len(dues) == len(set(dues))
    assert set(dues) <= {started + n * timedelta(minutes=1) for n in range(1, 61)}
    assert len(dues) >= 30


class MovesUntil(schedule):
    """An interval that stops moving."""

    end: datetime

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        return timedelta(minutes=1) if last_run_at < self.end else timedelta(0)

    def __repr__(self) -> str:
        return "<moves until>"


def test_a_schedule_that_stops_moving_is_logged_once_and_holds_up_nothing(
    broker: FakeBroker, now: FakeClock, timetable: Schedule, caplog: pytest.LogCaptureFixture
) -> None:
    stuck = MovesUntil(60)
    stuck.end = now.now + timedelta(minutes=2)
    timetable["stuck"] = {"task": TASK, "schedule": stuck, "args": ("stuck",)}
    beat = OutboxScheduler(app=celery_app)
    beat.tick()
    fire_every_minute(now, 10, beat)
    runs = [list(message.args) for message in broker.pushed]
    assert (runs.count(["stuck"]), runs.count([])) == (2, 10)
    said = [r for r in caplog.records if r.message == "beat entry stuck cannot be enqueued"]
    assert len(said) == 1
    with db.reading() as session:
        entry = session.get_one(BeatEntry, "stuck")
    assert entry.next_due == stuck.end, "it has been overdue since then"


def test_an_unfinished_backlog_makes_the_next_tick_come_at_once(
    beat: OutboxScheduler, broker: FakeBroker, now: FakeClock
) -> None:
    outbox.attach(None)
    with db.transaction() as session:
        for _ in range(BATCH + 1):
            outbox.enqueue(session, TASK)
    now.advance(seconds=HOOK_GRACE.total_seconds())
    assert [beat.tick(), beat.tick()] == [0.0, INTERVAL]
    assert len(broker.pushed) == BATCH + 1


def test_an_outage_of_the_broker_is_waited_out_longer_and_longer(
    beat: OutboxScheduler, broker: FakeBroker, now: FakeClock
) -> None:
    beat.tick()
    now.advance(minutes=1)
    broker.down = True
    pauses = [beat.tick() for _ in range(12)]
    assert pauses[0] <= INTERVAL
    assert all(0 < pause <= LONGEST_PAUSE_SECONDS for pause in pauses)
    assert pauses[-1] >= LONGEST_PAUSE_SECONDS / 2
    assert planned() == [], "nobody confirms what time it is"

    broker.down = False
    assert beat.tick() == INTERVAL
    assert [message.task for message in broker.pushed] == [TASK]
    broker.down = True
    assert beat.tick() <= INTERVAL, "the next outage begins with a short pause again"


def test_what_beat_does_not_know_is_logged_and_does_not_end_it(
    beat: OutboxScheduler, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    beat.tick()
    with monkeypatch.context() as broken:
        broken.setattr(beat, "enqueue_due", lambda: {}["missing"])
        assert 0 < beat.tick() <= INTERVAL
    assert beat.tick() == INTERVAL


def test_an_outage_of_the_database_is_waited_out_longer_and_longer(
    beat: OutboxScheduler, database: Engine, no_database: None, broker: FakeBroker, now: FakeClock
) -> None:
    pauses = [beat.tick() for _ in range(12)]
    assert pauses[0] <= INTERVAL
    assert all(0 < pause <= LONGEST_PAUSE_SECONDS for pause in pauses)
    assert pauses[-1] >= LONGEST_PAUSE_SECONDS / 2

    db.use(database)
    assert beat.tick() == INTERVAL
    now.advance(minutes=1)
    assert beat.tick() == INTERVAL


@on_sqlite
def test_a_locked_database_is_an_outage_too(
    beat: OutboxScheduler, database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    beat.tick()
    now.advance(minutes=1)
    impatient = db.create_database_engine(str(database.url), busy_timeout=0.01)
    with database.connect() as holder:
        holder.execute(text("SELECT 1"))  # takes the write lock
        db.use(impatient)
        assert 0 < beat.tick() <= INTERVAL
        assert planned() == []
    assert beat.tick() == INTERVAL
    db.use(database)
    impatient.dispose()
    assert [message.task for message in broker.pushed] == [TASK]


def test_an_outage_is_logged_with_its_reason_and_the_pause(
    beat: OutboxScheduler, broker: FakeBroker, caplog: pytest.LogCaptureFixture
) -> None:
    broker.down = True
    pause = beat.tick()
    assert f"beat cannot work, again in {pause:.1f} s: connection refused" in caplog.text


@pytest.fixture
def of_redis(broker: FakeBroker, now: FakeClock) -> FakeClock:
    """Redis's clock, apart from that of the beat that ticks."""
    broker.clock = FakeClock(now.now)
    return broker.clock


@pytest.mark.parametrize("error", [timedelta(minutes=6), timedelta(minutes=-6), timedelta(days=1)])
def test_a_beat_whose_clock_is_minutes_off_fires_no_due_instant_twice(
    timetable: Schedule, broker: FakeBroker, now: FakeClock, of_redis: FakeClock, error: timedelta
) -> None:
    right, wrong = OutboxScheduler(app=celery_app), OutboxScheduler(app=celery_app)
    right.tick()
    started = of_redis.now
    for _ in range(5):
        of_redis.advance(minutes=1)
        for beat, off in ((wrong, error), (right, timedelta(0))):
            now.now = of_redis.now + off
            beat.tick()
    minutes = [started + number * timedelta(minutes=1) for number in range(1, 6)]
    assert [message.due_instant for message in broker.pushed] == minutes


def test_a_beat_whose_clock_is_off_says_so_once_and_goes_on_when_it_is_set(
    beat: OutboxScheduler,
    broker: FakeBroker,
    now: FakeClock,
    of_redis: FakeClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    beat.tick()
    due = now.now + timedelta(minutes=1)
    for _ in range(3):
        of_redis.advance(seconds=20)
        now.now = of_redis.now + timedelta(minutes=6)
        assert beat.tick() == INTERVAL
    assert broker.pushed == []
    (said,) = [record for record in caplog.records if record.name == "app.tasks.scheduler"]
    assert said.levelname == "ERROR"
    assert said.message == (
        "beat fires nothing: this machine's clock is +360 s off Redis's, more than the 150 s that "
        "the schedule allows: set whichever of the two is wrong (NTP)"
    )
    now.now = of_redis.now
    caplog.clear()
    caplog.set_level("INFO")
    beat.tick()
    assert "beat fires again: its clock agrees with Redis's" in caplog.text
    assert [message.due_instant for message in broker.pushed] == [due]


def test_a_beat_whose_clock_is_off_publishes_what_is_due_by_redis_clock_and_nothing_else(
    beat: OutboxScheduler, broker: FakeBroker, now: FakeClock, of_redis: FakeClock
) -> None:
    outbox.attach(None)
    with db.transaction() as session:
        due = outbox.enqueue(session, TASK)
        outbox.enqueue(session, TASK, at=now.now + timedelta(minutes=5))
    of_redis.advance(seconds=HOOK_GRACE.total_seconds())
    now.now = of_redis.now + timedelta(minutes=6)
    beat.tick()
    assert [message.id for message in broker.pushed] == [due]


def test_a_beat_that_hangs_after_it_has_asked_the_time_takes_nothing_for_a_mistake(
    beat: OutboxScheduler,
    timetable: Schedule,
    broker: FakeBroker,
    now: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its machine sleeps for ten minutes, say, and another beat goes on meanwhile."""
    other = OutboxScheduler(app=celery_app)
    other.tick()
    answer = broker.now

    def hang() -> datetime:
        monkeypatch.setattr(broker, "now", answer)
        told = broker.now()
        for _ in range(10):
            now.advance(minutes=1)
            other.tick()
        return told

    monkeypatch.setattr(broker, "now", hang)
    for _ in range(3):
        beat.tick()
    fired = [message.due_instant for message in broker.pushed]
    assert len(fired) == len(set(fired)) == 10
