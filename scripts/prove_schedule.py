"""Run the schedule over a whole year with two beats that are killed again and again.

    python -m scripts.prove_schedule                     2026, 200 kills, every entry
    python -m scripts.prove_schedule --minutely weeks    the every-minute entry in some weeks only

The real scheduler ticks on a clock that jumps from due instant to due instant, on a real
SQLite file. Two beats have clocks seconds apart; one often ticks in the middle of the other's
tick; a kill is an exception at a drawn statement, and the killed beat comes back after
seconds or hours, so that one of them sees every instant. To save time, the
year is cut in spans that run side by side, and the pump works at every twelfth tick only.
What is right is found by reading the wall clock at every minute of UTC
(``scripts.prove_dst``), from the README's table and not from the code's. Exit status 0 only
where each due instant has exactly one run.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import reduce
from itertools import pairwise
from multiprocessing import get_context
from operator import add
from os import cpu_count
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Engine, event

from app import clock, db, entropy, outbox, schema
from app.outbox.broker import NoStamp, OutboxMessage, QueueDepth
from app.outbox.pump import Pump, PumpRound
from app.tasks import celery_app
from app.tasks.celery_config import BEAT_SCHEDULE
from app.tasks.scheduler import OutboxScheduler
from scripts.prove_dst import (
    ALL_DAYS,
    ALL_HOURS,
    ALL_MINUTES,
    ALL_MONTHS,
    ALL_WEEKDAYS,
    Fields,
    due_instants,
    read_clock,
)

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
MINUTELY = "health-check"
STATEMENTS = 10
"""A kill comes at one of so many of a tick's statements, or at its end."""
PUMPED_EVERY = 12
"""Ticks of both beats; the pump has no part in which instants are due."""
SHOWN = 10


def _fields(minute: set[int], hour: set[int]) -> Fields:
    return Fields(minute, hour, ALL_DAYS, ALL_MONTHS, ALL_WEEKDAYS)


README = {
    "session-cleanup": _fields({0}, ALL_HOURS),
    "booking-reminders": _fields({0, 30}, ALL_HOURS),
    "daily-analytics": _fields({0}, {2}),
    "notification-cleanup": _fields({0}, {3}),
    "no-show-check": _fields({0, 15, 30, 45}, ALL_HOURS),
    "availability-cache": _fields(set(range(0, 60, 5)), ALL_HOURS),
    MINUTELY: _fields(ALL_MINUTES, ALL_HOURS),
}

ByDay = dict[date, Counter[str]]
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

    def oldest(self, lists: Sequence[tuple[str, int]]) -> Sequence[NoStamp]:
        return [NoStamp.FOREIGN for _ in lists]

    def depths(self, queues: Sequence[str]) -> Mapping[str, QueueDepth]:
        return {queue: QueueDepth(0, None) for queue in queues}

    def held(self) -> set[str]:
        return set()


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
        names = {str(entry["task"]): name for name, entry in BEAT_SCHEDULE.items()}
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


def right_runs(start: datetime, end: datetime, zone: ZoneInfo) -> dict[str, list[datetime]]:
    """The oracle: when each entry of the README is due from ``start`` until before ``end``."""
    # From a day before: an instant that is left out belongs to the first one after it.
    minutes = read_clock(zone, start - DAY, end)
    return {
        name: [due for due in due_instants(fields, minutes) if due >= start]
        for name, fields in README.items()
    }


def run(
    start: datetime,
    end: datetime,
    *,
    zone: ZoneInfo,
    seed: int,
    kills: int,
    minutely: Sequence[tuple[datetime, datetime]] | None = None,
) -> Findings:
    """Let two beats pass all due instants of the span, and compare.

    ``minutely`` are the only spans in which the every-minute entry is in force; all where
    left out.
    """
    began = monotonic()
    right = right_runs(start, end, zone)
    if minutely is not None:
        right[MINUTELY] = [
            due for due in right[MINUTELY] if any(first <= due < last for first, last in minutely)
        ]
    instants = sorted({due for dues in right.values() for due in dues})
    rng = Random(seed)
    killed_at = set(rng.sample(instants, min(kills, len(instants))))
    often = set(right[MINUTELY])
    with made_world(start - MINUTE, seed) as world:
        world.put_in_force(list(README))
        for beat in world.beats:
            beat.tick(start - MINUTE)
        in_force = True
        for due in instants:
            if (due in often) is not in_force:
                in_force = not in_force
                world.put_in_force([name for name in README if in_force or name != MINUTELY])
            world.pass_instant(due, kill=due in killed_at)
            world.finish_tasks()
        seen = world.planned()
        wanted = Counter({(name, due): 1 for name, dues in right.items() for due in dues})
        return Findings(
            start=start,
            end=end,
            zone=zone.key,
            seed=seed,
            instants=len(instants),
            runs=seen.total(),
            missing=sorted((wanted - seen).elements(), key=_by_instant),
            extra=sorted((seen - wanted).elements(), key=_by_instant),
            pushed_twice=sum(1 for count in world.workers.pushed.values() if count > 1),
            kills=world.kills,
            ticks=world.ticks,
            torn=world.torn,
            by_day=_by_day(seen, zone),
            right_by_day=_by_day(wanted, zone),
            seconds=monotonic() - began,
        )


def _by_instant(run: Run) -> tuple[datetime, str]:
    return run[1], run[0]


def _by_day(runs: Counter[Run], zone: ZoneInfo) -> ByDay:
    days: ByDay = {}
    for (name, due), count in runs.items():
        days.setdefault(due.astimezone(zone).date(), Counter())[name] += count
    return days


def _together(one: ByDay, other: ByDay) -> ByDay:
    days = sorted({*one, *other})
    return {day: one.get(day, Counter()) + other.get(day, Counter()) for day in days}


@dataclass
class Findings:
    """What was seen, beside what is right."""

    start: datetime
    end: datetime
    zone: str
    seed: int
    instants: int
    runs: int
    missing: list[Run]
    extra: list[Run]
    pushed_twice: int
    kills: Kills
    ticks: int
    torn: int
    by_day: ByDay
    right_by_day: ByDay
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether each due instant had exactly one run, and each run one message."""
        return not (self.missing or self.extra or self.pushed_twice)

    def followed_by(self, later: Findings) -> Findings:
        """Both spans as one."""
        return Findings(
            start=self.start,
            end=later.end,
            zone=self.zone,
            seed=self.seed,
            instants=self.instants + later.instants,
            runs=self.runs + later.runs,
            missing=self.missing + later.missing,
            extra=self.extra + later.extra,
            pushed_twice=self.pushed_twice + later.pushed_twice,
            kills=Kills(*map(add, astuple(self.kills), astuple(later.kills))),
            ticks=self.ticks + later.ticks,
            torn=self.torn + later.torn,
            by_day=_together(self.by_day, later.by_day),
            right_by_day=_together(self.right_by_day, later.right_by_day),
            seconds=max(self.seconds, later.seconds),
        )

    def hours(self, day: date) -> int:
        """How long a local day is."""
        zone = ZoneInfo(self.zone)
        midnight, next_one = (
            datetime(on.year, on.month, on.day, tzinfo=zone).astimezone(UTC)
            for on in (day, day + DAY)
        )
        return (next_one - midnight) // timedelta(hours=1)

    def counts(self, hours: int, name: str) -> list[int]:
        """How often an entry ran on days of this length: each number that occurs."""
        return sorted(
            {
                seen[name]
                for day, seen in self.by_day.items()
                if self.hours(day) == hours and self.right_by_day[day][name]
            }
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "holds": self.holds,
            "zone": self.zone,
            "start": self.start.isoformat(),
            "end": self.end.isoformat(),
            "seed": self.seed,
            "due_instants": self.instants,
            "runs": self.runs,
            "missing": [[name, due.isoformat()] for name, due in self.missing],
            "extra": [[name, due.isoformat()] for name, due in self.extra],
            "pushed_twice": self.pushed_twice,
            "kills": {**asdict(self.kills), "total": self.kills.total},
            "ticks": self.ticks,
            "ticks_in_the_middle_of_another": self.torn,
            "seconds": round(self.seconds, 1),
            "by_day": {day.isoformat(): dict(seen) for day, seen in sorted(self.by_day.items())},
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--year", type=int, default=2026)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=cpu_count() or 1, help="side by side")
    parser.add_argument("--kills", type=int, default=200, help="kills in the year (200)")
    parser.add_argument(
        "--minutely",
        choices=["weeks", "year"],
        default="weeks",
        help="the every-minute entry in the weeks around the changes of the clocks, the first "
        "and a drawn one (default), or all year, which takes long",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for machines")
    options = parser.parse_args()
    logging.getLogger("app").setLevel(logging.ERROR)
    zone = ZoneInfo(str(celery_app.timezone))
    start, end = (
        datetime(year, 1, 1, tzinfo=zone).astimezone(UTC)
        for year in (options.year, options.year + 1)
    )
    weeks = None if options.minutely == "year" else _weeks(start, end, zone, options.seed)
    found = _in_spans(start, end, zone, weeks, options)
    if options.json:
        print(json.dumps(found.as_json(), indent=2))
    else:
        _tell(found, weeks)
    return 0 if found.holds else 1


def _in_spans(
    start: datetime,
    end: datetime,
    zone: ZoneInfo,
    minutely: Sequence[tuple[datetime, datetime]] | None,
    options: argparse.Namespace,
) -> Findings:
    """The findings of equal spans of whole days, each with beats and a database of its own."""
    number = min(options.processes, (end - start) // DAY)
    edges = [start + (end - start) // DAY * n // number * DAY for n in range(number)] + [end]
    with ProcessPoolExecutor(number, mp_context=get_context("spawn")) as processes:
        spans = [
            processes.submit(
                run,
                first,
                last,
                zone=zone,
                seed=options.seed + n,
                kills=options.kills * (n + 1) // number - options.kills * n // number,
                minutely=minutely,
            )
            for n, (first, last) in enumerate(pairwise(edges))
        ]
        return reduce(Findings.followed_by, [span.result() for span in spans])


def _weeks(
    start: datetime, end: datetime, zone: ZoneInfo, seed: int
) -> list[tuple[datetime, datetime]]:
    """The first week, one drawn, and those in whose middle the clocks are changed."""
    days = [start + n * DAY for n in range((end - start) // DAY)]
    changed = [day for day in days if _offset(day, zone) != _offset(day + DAY, zone)]
    drawn = Random(seed).choice(days[30:-30])
    middles = [day.astimezone(zone).replace(hour=0) for day in (*changed, drawn)]
    return [
        (start, (start.astimezone(zone) + 7 * DAY).astimezone(UTC)),
        *(
            ((middle - 3 * DAY).astimezone(UTC), (middle + 4 * DAY).astimezone(UTC))
            for middle in middles
        ),
    ]


def _offset(at: datetime, zone: ZoneInfo) -> timedelta | None:
    return at.astimezone(zone).utcoffset()


def _tell(found: Findings, weeks: Sequence[tuple[datetime, datetime]] | None) -> None:
    verdict = "each due instant had exactly one run" if found.holds else "BROKEN"
    print(
        f"{verdict}: {found.runs:,} runs, {len(found.missing)} missing, "
        f"{len(found.extra)} too many, {found.pushed_twice} messages doubled"
    )
    for what, runs in (("missing", found.missing), ("too many", found.extra)):
        for name, due in runs[:SHOWN]:
            print(f"  {what}: {name} at {due}")
    print()
    lengths = sorted({found.hours(day) for day in found.by_day})
    print(f"{'runs a day':<22}" + "".join(f"{hours:>9} h" for hours in lengths) + f"{'year':>12}")
    for name in README:
        cells = ["/".join(map(str, found.counts(hours, name))) for hours in lengths]
        total = sum(seen[name] for seen in found.by_day.values())
        print(f"{name:<22}" + "".join(f"{cell:>11}" for cell in cells) + f"{total:>12,}")
    days = Counter(found.hours(day) for day in found.by_day)
    print(f"{'days':<22}" + "".join(f"{days[hours]:>11}" for hours in lengths))
    print()
    kills = found.kills
    print(
        f"{kills.total} kills: {kills.in_a_transaction} inside a transaction, "
        f"{kills.between_transactions} between two, {kills.at_the_end} after a tick; "
        f"{kills.both_down} while the other beat was down"
    )
    print(
        f"{found.ticks:,} ticks of two beats, {found.torn:,} in the middle of another's; "
        f"{found.zone}, seed {found.seed}, {found.seconds:.0f} s"
    )
    if weeks is not None:
        spans = ", ".join(f"{first:%d %b} to {last - DAY:%d %b}" for first, last in weeks)
        print(f"{MINUTELY} was in force only in {spans} (--minutely year: all year)")


if __name__ == "__main__":
    sys.exit(main())
