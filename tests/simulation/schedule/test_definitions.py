"""Beats whose schedules differ, on virtual time: by whose definition is an entry fired?

The real scheduler ticks every second of a clock that the test moves, on a real database. What
is right is found from what the database itself noted (a trigger) and from the minutes of each
definition, not from the code's rule.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random
from typing import NamedTuple

import pytest
from celery import Celery
from sqlalchemy import Engine, text

from app import db, outbox
from app.outbox.schedule import SIGN_EVERY
from app.services import health
from app.services.health import Limits
from app.tasks import celery_app
from app.tasks.scheduler import OutboxScheduler
from app.tasks.schedules import crontab
from tests.database import on_sqlite
from tests.fakes import FakeBroker, FakeClock

pytestmark = on_sqlite
START = datetime(2026, 7, 1, 11, 50, 30, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
TASK = "app.tasks.bookings.send_due_reminders"
EVEN, ODD = (frozenset(range(first, 60, 2)) for first in (0, 1))
LIMITS = Limits(
    queue_age=timedelta(days=1),
    unpublished=timedelta(days=1),
    beat=timedelta(hours=1),
    dead_letters=20,
    clock=timedelta(seconds=10),
    retrying=timedelta(days=1),
)


class Definition(NamedTuple):
    """One version's entry: the minutes at which it is due, and its number as an argument."""

    number: int
    minutes: frozenset[int]
    zone: str = "UTC"
    hours: str = "*"

    def beat(self) -> OutboxScheduler:
        """A beat that has just been started with this version."""
        app = Celery(f"version{self.number}", set_as_current=False)
        app.conf.timezone = self.zone
        app.conf.beat_schedule = {
            "entry": {
                "task": TASK,
                "schedule": crontab(
                    minute=",".join(map(str, sorted(self.minutes))), hour=self.hours
                ),
                "args": (self.number,),
                "options": {"catch_up": "each"},
            }
        }
        return OutboxScheduler(app=app)


class Fired(NamedTuple):
    due: datetime
    number: int


class World:
    """The database, the clocks, and what was fired."""

    def __init__(self, now: FakeClock, broker: FakeBroker) -> None:
        self.now = now
        self.broker = broker
        with db.transaction() as session:
            session.execute(text("CREATE TABLE reigns (definition, since)"))
            session.execute(
                text(
                    "CREATE TRIGGER note_reigns AFTER UPDATE OF definition ON beat_entries "
                    "WHEN NEW.definition <> OLD.definition BEGIN "
                    "INSERT INTO reigns VALUES (NEW.definition, max(OLD.last_due, (SELECT "
                    "kept_through FROM beat_definitions WHERE definition = OLD.definition))); END"
                )
            )

    def pass_time(self, duration: timedelta, *beats: OutboxScheduler, step: float = 1.0) -> None:
        end = self.now.now + duration
        while self.now.now < end:
            for beat in beats:
                beat.tick()
            self.now.advance(seconds=step)

    def fired(self) -> list[Fired]:
        """In the order of their publication."""
        return [
            Fired(message.due_instant, message.args[0])
            for message in self.broker.pushed
            if message.task == TASK
        ]

    def reigns(self) -> list[datetime]:
        """Since when each definition after the first one is in force."""
        with db.reading() as session:
            rows = session.scalars(text("SELECT since FROM reigns ORDER BY rowid"))
            return [datetime.fromisoformat(since).replace(tzinfo=UTC) for since in rows]

    def problems(self) -> list[str]:
        found = health.check(self.broker, now=self.now.now, limits=LIMITS)
        return list(found.problems)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    return FakeClock.install(monkeypatch, START)


@pytest.fixture
def world(database: Engine, now: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    assert celery_app.tasks
    broker = FakeBroker(now)
    monkeypatch.setattr("app.tasks.scheduler.RedisBroker", lambda app, timeout: broker)
    attached_before = outbox.attach(broker)
    yield World(now, broker)
    outbox.attach(attached_before)


def due(definition: Definition, since: datetime, until: datetime) -> list[Fired]:
    """Those of a definition with any hour in UTC, after ``since`` up to ``until``."""
    minute = since.replace(second=0, microsecond=0)
    found = []
    while (minute := minute + MINUTE) <= until:
        if minute.minute in definition.minutes:
            found.append(Fired(minute, definition.number))
    return found


HOURLY = frozenset({0})


def test_two_beats_with_different_time_zones_do_not_silence_an_entry(world: World) -> None:
    """Each took the other's schedule for a change, every second, and nothing was ever due."""
    ours = Definition(1, HOURLY, zone="US/Eastern", hours="8-10").beat()
    world.pass_time(MINUTE, ours)
    forgotten = Definition(2, HOURLY, zone="UTC", hours="12-14").beat()
    world.pass_time(timedelta(hours=2, minutes=20), ours, forgotten, step=10)
    assert [fired.due.hour for fired in world.fired()] == [12, 13, 14]
    assert {fired.number for fired in world.fired()} == {2}, "the newer definition"
    (problem,) = world.problems()
    assert "0 12-14 * * * UTC, catch_up=each" in problem
    assert "0 8-10 * * * US/Eastern, catch_up=each" in problem


def test_when_the_wrong_beat_ends_the_other_one_goes_on_where_it_ended(world: World) -> None:
    ours = Definition(1, ODD).beat()
    world.pass_time(10 * MINUTE, ours, step=5)
    wrong = Definition(2, EVEN).beat()
    world.pass_time(10 * MINUTE, ours, wrong, step=5)
    assert world.problems()
    ended = world.now.now
    world.pass_time(10 * MINUTE, ours, step=5)
    assert world.problems() == []
    since, again_since = world.reigns()
    assert ended - 2 * SIGN_EVERY < again_since <= ended
    assert world.fired() == [
        *due(Definition(1, ODD), START, since),
        *due(Definition(2, EVEN), since, again_since),
        *due(Definition(1, ODD), again_since, world.now.now),
    ]


@pytest.mark.parametrize("seed", range(3))
def test_a_rolling_change_every_minute_for_an_hour_loses_and_doubles_no_due_instant(
    world: World, seed: int
) -> None:
    """Each minute a beat with another crontab starts, and seconds later the one before ends.

    Some changes come at a full minute, when both definitions may be due.
    """
    rng = Random(seed)
    versions = [
        Definition(number, frozenset([*rng.sample(range(60), rng.choice([20, 40, 60])), number]))
        for number in range(60)
    ]
    old = versions[0].beat()
    told = 0
    for version in versions[1:]:
        world.pass_time(rng.choice([30, 60, rng.uniform(1, 60)]) * SECOND, old, step=7)
        new = version.beat()
        beats = [old, new]
        rng.shuffle(beats)
        world.pass_time(rng.uniform(1, 20) * SECOND, *beats, step=4)
        told += any("beats disagree about entry" in problem for problem in world.problems())
        old = new
    world.pass_time(2 * MINUTE, old, step=7)
    assert told >= 50
    edges = [START, *world.reigns(), world.now.now]
    assert len(edges) == 61
    wanted = [
        fired
        for version, (since, until) in zip(versions, pairwise(edges), strict=True)
        for fired in due(version, since, until)
    ]
    fired = world.fired()
    assert fired == wanted
    assert len(fired) >= 20


def test_a_change_and_its_roll_back_every_minute_for_an_hour_lose_no_due_instant(
    world: World,
) -> None:
    """A, B, A, B: what was replaced before waits, and is caught up."""
    both = Definition(1, ODD), Definition(2, EVEN)
    beat = both[0].beat()
    for number in range(60):
        world.pass_time(50 * SECOND, beat, step=5)
        next_beat = both[(number + 1) % 2].beat()
        world.pass_time(10 * SECOND, beat, next_beat, step=5)
        beat = next_beat
    world.pass_time(5 * MINUTE, beat, step=5)
    edges = [START, *world.reigns(), world.now.now]
    wanted = [
        fired
        for number, (since, until) in enumerate(pairwise(edges))
        for fired in due(both[number % 2], since, until)
    ]
    assert world.fired() == wanted
    assert 2 <= len(edges) - 1 <= 62
