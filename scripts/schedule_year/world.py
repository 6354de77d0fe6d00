"""The database, the clock, and two beats that are killed at any statement of a tick."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from sqlalchemy import Engine, event

from app import clock, db, entropy, outbox, schema
from app.outbox.broker import Memory, NoStamp, OutboxMessage, QueueDepth
from app.outbox.pump import Pump, PumpRound
from app.tasks import celery_app
from app.tasks.celery_config import BEAT_SCHEDULE
from app.tasks.scheduler import OutboxScheduler

SECOND = timedelta(seconds=1)
STATEMENTS = 10
"""A kill comes at one of so many of a tick's statements, or at its end."""
PUMPED_EVERY = 12
"""Ticks of both beats; the pump has no part in which instants are due."""

Run = tuple[str, datetime]
"""An entry's name and a due instant of it."""


class Killed(BaseException):
    """The process ends here: nothing of ours may catch it."""


@dataclass
class Clock:
    """Stands in the place of the real one."""

    now: datetime

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Workers:
    """A broker whose messages are taken at once."""

    clock: Clock
    pushed: Counter[str] = field(default_factory=Counter)

    def now(self) -> datetime:
        return self.clock.now

    def push(self, messages: Sequence[OutboxMessage]) -> None:
        self.pushed.update(message.id for message in messages)

    def check_writable(self) -> None:
        """It takes every message."""

    def oldest(self, lists: Sequence[tuple[str, int]]) -> Sequence[NoStamp]:
        return [NoStamp.FOREIGN for _ in lists]

    def depths(self, queues: Sequence[str]) -> Mapping[str, QueueDepth]:
        return {queue: QueueDepth(0, None) for queue in queues}

    def held(self) -> set[str]:
        return set()

    def purge(self, queue: str) -> int:
        return 0

    def memory(self) -> Memory:
        return Memory(used_bytes=0, limit_bytes=None, policy=None)


class SparedPump(Pump):
    """Rests at most ticks."""

    ticks = 0

    def run(self) -> PumpRound:
        self.ticks += 1
        return PumpRound() if self.ticks % PUMPED_EVERY else super().run()


class Beat:
    """One beat, as long as nobody kills it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.down_until: datetime | None = None
        self.start()

    def start(self) -> None:
        world = self._world
        self.down_until = None
        self.clock_error = world.rng.uniform(-1.5, 1.5) * SECOND
        self._scheduler = OutboxScheduler(app=celery_app)
        # In place of those that would ask Redis.
        self._scheduler._broker, self._scheduler._pump = world.workers, world.pump

    def tick(self, reading: datetime) -> None:
        """One round, while this beat's clock says ``reading``."""
        before = self._world.clock.now
        self._world.clock.now = reading
        try:
            self._scheduler.tick()
        finally:
            self._world.clock.now = before


@dataclass
class Kills:
    in_a_transaction: int = 0
    between_transactions: int = 0
    at_the_end: int = 0
    both_down: int = 0

    @property
    def total(self) -> int:
        return self.in_a_transaction + self.between_transactions + self.at_the_end


class World:
    """The database, the clock and the two beats."""

    def __init__(self, engine: Engine, now: Clock, rng: Random) -> None:
        self.engine = engine
        self.clock = now
        self.rng = rng
        self.workers = Workers(now)
        self.pump = SparedPump(engine, self.workers, margin=10 * SECOND, max_publishes=100)
        self.kills = Kills()
        self.ticks = self.torn = 0
        self._kill_in: int | None = None
        self._other: tuple[int, Beat, datetime] | None = None
        self._in_transaction = False
        self._put_in_force: set[str] = set()
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE planned (task, due)")
            connection.exec_driver_sql(
                "CREATE TRIGGER note_plans AFTER INSERT ON outbox_entries BEGIN "
                "INSERT INTO planned VALUES (NEW.task, NEW.due_instant); END"
            )
        event.listen(engine, "before_cursor_execute", self._executes)
        event.listen(engine, "commit", self._commits)
        self.beats = [Beat(self), Beat(self)]

    def put_in_force(self, entries: Sequence[str]) -> None:
        """Start both beats anew, with these entries."""
        self._put_in_force.update(entries)
        celery_app.conf.beat_schedule = {name: BEAT_SCHEDULE[name] for name in entries}
        for beat in self.beats:
            beat.start()

    def pass_instant(self, due: datetime, *, kill: bool) -> None:
        """Both beats come past ``due``, each by its own clock.

        The second one ticks in the middle of the first one's tick, right after it, or only
        at the next instant, as a beat does that is paused; that also saves time.
        """
        rng = self.rng
        for beat in self.beats:
            if beat.down_until is not None and beat.down_until <= due:
                beat.start()
        alive = [beat for beat in self.beats if beat.down_until is None]
        # A beat ticks every second, so it looks within one after the instant, by its clock.
        readings = {id(beat): due + rng.random() * SECOND for beat in alive}
        alive.sort(key=lambda beat: readings[id(beat)] - beat.clock_error)
        if len(alive) == 2:
            second = alive.pop()
            late = 0.0 if kill else 1.0  # after a kill somebody has to see the instant
            match rng.choices(["torn", "after", "late"], (0.2, 0.2, 0.6 * late))[0]:
                case "torn":
                    self._other = (rng.randrange(6), second, readings[id(second)])
                case "after":
                    alive.append(second)
        victim = rng.choice(alive) if kill else None
        for beat in alive:
            self._tick(beat, readings[id(beat)], kill=beat is victim)
        if self._other is not None:  # the first one's tick did not get so far
            _, second, reading = self._other
            self._other = None
            self._tick(second, reading, kill=False)
        if victim is not None:
            self._send_away(victim, due)

    def _send_away(self, victim: Beat, due: datetime) -> None:
        rng = self.rng
        for beat in self.beats:
            beat_is_up = beat is not victim and beat.down_until is None
            if beat_is_up:
                away = rng.choice([rng.uniform(1, 55), rng.uniform(60, 12 * 3600)])
                victim.down_until = due + away * SECOND
                return
        # Nobody else is there: it is back before the next minute, and looks at once.
        self.kills.both_down += 1
        victim.start()
        self._tick(victim, due + rng.uniform(2, 55) * SECOND, kill=False)

    def _tick(self, beat: Beat, reading: datetime, *, kill: bool) -> None:
        self.ticks += 1
        if kill:
            self._kill_in = self.rng.randrange(STATEMENTS)
        try:
            beat.tick(reading)
            if kill:
                self.kills.at_the_end += 1
        except Killed:
            if self._in_transaction:
                self.kills.in_a_transaction += 1
            else:
                self.kills.between_transactions += 1
        finally:
            self._kill_in = None
            self._in_transaction = False

    def finish_tasks(self) -> None:
        """Purge what was published, as if it were done."""
        with self.engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM outbox_entries WHERE published_at IS NOT NULL")

    def planned(self) -> Counter[Run]:
        """The runs that beats have planned, as the database itself noted them."""
        names = {str(BEAT_SCHEDULE[name]["task"]): name for name in self._put_in_force}
        with self.engine.begin() as connection:
            rows = connection.exec_driver_sql("SELECT task, due FROM planned").all()
        return Counter(
            (names[task], datetime.fromisoformat(due).replace(tzinfo=UTC)) for task, due in rows
        )

    def _executes(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        begins = statement.startswith("BEGIN")
        if begins and self._other is not None:
            position, beat, reading = self._other
            self._other = (position - 1, beat, reading) if position else None
            if not position:
                self._interrupt(beat, reading)
        self._step()
        self._in_transaction |= begins

    def _interrupt(self, beat: Beat, reading: datetime) -> None:
        # The kill is meant for the beat that is interrupted.
        kill_in, self._kill_in = self._kill_in, None
        self.torn += 1
        beat.tick(reading)
        self._kill_in = kill_in

    def _commits(self, _connection: Any) -> None:
        self._step()
        self._in_transaction = False

    def _step(self) -> None:
        if self._kill_in is None:
            return
        if self._kill_in == 0:
            self._kill_in = None
            raise Killed
        self._kill_in -= 1


@contextmanager
def made_world(start: datetime, seed: int) -> Iterator[World]:
    """A migrated database, a clock at ``start``, and two beats; all undone at the end."""
    now = Clock(start)
    real_clock, real_random = clock.utcnow, entropy.use(Random(seed))
    broker = outbox.attach(None)
    schedule = celery_app.conf.beat_schedule
    with tempfile.TemporaryDirectory(prefix="prove-schedule-") as folder:
        engine = db.create_database_engine(f"sqlite:///{Path(folder)}/year.sqlite3")
        replaced = db.use(engine)
        clock.utcnow = now
        try:
            schema.upgrade(engine)
            yield World(engine, now, Random(seed))
        finally:
            clock.utcnow = real_clock
            celery_app.conf.beat_schedule = schedule
            db.use(replaced)
            outbox.attach(broker)
            entropy.use(real_random)
            engine.dispose()
