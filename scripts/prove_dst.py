"""Compare our crontab with brute force around every change of the clocks of every time zone.

    python -m scripts.prove_dst                      every zone, 2024-2030
    python -m scripts.prove_dst --zones 20 --seed 7  twenty zones drawn by the seed

A case is a drawn crontab asked again and again from 26 hours before a change to 26 hours
after it. What is right is found without any calendar arithmetic: the clocks are read at
every minute of UTC, one after the other. Exit status 0 only where ours is always right;
how often Celery's own is not is printed beside it.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random
from time import monotonic
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from celery import Celery, schedules

from app.tasks.due import next_due
from app.tasks.schedules import crontab
from scripts.arguments import command, number, run_command

MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)
MICROSECOND = timedelta(microseconds=1)
AROUND = timedelta(hours=26)
"""How far to both sides of a change a case reaches: more than a local day."""
CLOSE, SECONDS_CLOSE = 20, 3 * 3600
"""As many questions are asked within so many seconds of the change, whatever is due then."""
SCAN = timedelta(hours=6)
ALL_MINUTES, ALL_HOURS, ALL_DAYS = set(range(60)), set(range(24)), set(range(1, 32))
ALL_MONTHS, ALL_WEEKDAYS = set(range(1, 13)), set(range(7))
SHOWN = 10
"""As many differences are printed in full."""

Clock = list[tuple[datetime, datetime]]
"""Each minute of UTC, and what the wall clock shows then."""
Question = tuple[datetime, datetime | None]
"""An instant, and the first due one after it; ``None`` where that is beyond the clock."""


@dataclass(frozen=True)
class Fields:
    """A crontab's five fields."""

    minute: set[int]
    hour: set[int]
    day_of_month: set[int]
    month_of_year: set[int]
    day_of_week: set[int]

    def match(self, wall: datetime) -> bool:
        return (
            wall.minute in self.minute
            and wall.hour in self.hour
            and wall.day in self.day_of_month
            and wall.month in self.month_of_year
            and wall.isoweekday() % 7 in self.day_of_week
        )


def read_clock(zone: ZoneInfo, start: datetime, end: datetime) -> Clock:
    """What the clocks show at each minute of UTC from ``start`` until before ``end``."""
    minutes = (start + n * MINUTE for n in range((end - start) // MINUTE))
    return [(minute, minute.astimezone(zone).replace(tzinfo=None)) for minute in minutes]


def due_instants(fields: Fields, clock: Clock) -> list[datetime]:
    """When a crontab is due, by reading the clock minute after minute: the oracle."""
    if fields.hour == ALL_HOURS:
        return [instant for instant, wall in clock if fields.match(wall)]
    due = []
    shown = set()
    expected = clock[0][1]
    for instant, wall in clock:
        new = [] if wall in shown else [wall]
        while expected < wall:  # the clocks were put forward over these
            new.append(expected)
            expected += MINUTE
        if any(map(fields.match, new)):
            due.append(instant)
        shown.update(new)
        expected = wall + MINUTE
    return due


def changes(zone: ZoneInfo, first_year: int, last_year: int) -> list[datetime]:
    """The instants at which the zone's clocks are changed in these years, both included."""
    start = datetime(first_year, 1, 1, tzinfo=UTC)
    end = datetime(last_year + 1, 1, 1, tzinfo=UTC)
    found = []
    while start < end:
        if start.astimezone(zone).utcoffset() != (start + SCAN).astimezone(zone).utcoffset():
            clock = read_clock(zone, start, start + SCAN + MINUTE)
            found += [
                after[0] for before, after in pairwise(clock) if after[1] - before[1] != MINUTE
            ]
        start += SCAN
    return found


def drawn_fields(rng: Random, clock: Clock) -> Fields:
    """Fields that are likely to match around the middle of the clock's minutes."""
    wall = clock[len(clock) // 2][1]
    near = [(wall.hour + away) % 24 for away in (-2, -1, 0, 1)]
    days = sorted({wall.day for _, wall in clock})
    return Fields(
        minute=rng.choice(
            [
                {rng.randrange(60)},
                {0},
                set(rng.sample(range(60), rng.randint(2, 5))),
                set(range(0, 60, rng.choice([5, 10, 15, 30, 45]))),
                ALL_MINUTES,
            ]
        ),
        hour=rng.choice(
            [
                ALL_HOURS,
                ALL_HOURS,
                {rng.choice(near)},
                set(rng.sample(near, 2)),
                set(range(0, 24, rng.choice([2, 3, 4]))),
                ALL_HOURS - {rng.choice(near)},
                {rng.randrange(24)},
            ]
        ),
        day_of_month=rng.choice(
            [ALL_DAYS, ALL_DAYS, {wall.day}, {rng.choice(days), rng.randint(1, 28)}]
        ),
        month_of_year=rng.choice([ALL_MONTHS, ALL_MONTHS, {wall.month, rng.randint(1, 12)}]),
        day_of_week=rng.choice(
            [ALL_WEEKDAYS, ALL_WEEKDAYS, {wall.isoweekday() % 7}, set(rng.sample(range(7), 3))]
        ),
    )


def in_zone(kind: Callable[..., Any], fields: Fields, zone: ZoneInfo) -> Any:
    """The fields as a crontab of an application in this zone."""
    app: Any = Celery(set_as_current=False)  # to the stubs its timezone is read-only
    app.timezone = zone
    return kind(**vars(fields), app=app)


def questions(rng: Random, due: Sequence[datetime], clock: Clock) -> Iterator[Question]:
    """Questions at every due instant, between any two, and many close to the change."""
    before = clock[0][0] - MINUTE
    for instant in due:
        yield before, instant
        yield before + rng.randrange((instant - before) // MICROSECOND) * MICROSECOND, instant
        before = instant
    yield before, None
    for _ in range(CLOSE):
        after = clock[len(clock) // 2][0] + rng.randrange(-SECONDS_CLOSE, SECONDS_CLOSE) * SECOND
        yield after, next((instant for instant in due if instant > after), None)


def first_wrong(timetable: Any, asked: Sequence[Question], end: datetime) -> Question | None:
    """The first of the questions that the timetable answers wrongly, with its answer."""
    for after, right in asked:
        answer = next_due(timetable, after)
        if answer != right and (right is not None or answer < end):
            return after, answer
    return None


@dataclass
class Tally:
    cases: int = 0
    questions: int = 0
    ours: int = 0
    celerys: int = 0


def main() -> int:
    parser = command("prove_dst", __doc__)
    parser.add_argument("--zones", type=number(1), metavar="N", help="as many, drawn (all)")
    parser.add_argument("--seed", type=number(), default=0, help="draws zones and crontabs (0)")
    parser.add_argument("--cases", type=number(1), default=4, help="crontabs for each change (4)")
    parser.add_argument("--first-year", type=number(1900, 2100), default=2024)
    parser.add_argument("--last-year", type=number(1900, 2100), default=2030)
    options = parser.parse_args()
    if options.first_year > options.last_year:
        parser.error(f"--first-year {options.first_year} is after --last-year {options.last_year}")
    began = monotonic()
    tally = Tally()
    moved: Counter[timedelta] = Counter()
    names = sorted(available_timezones())
    if options.zones is not None:
        names = sorted(Random(options.seed).sample(names, min(options.zones, len(names))))
    for name in names:
        zone = ZoneInfo(name)
        rng = Random(f"{options.seed} {name}")
        found = changes(zone, options.first_year, options.last_year)
        moved.update(_moved(zone, change) for change in found)
        # A zone that is never changed has an ordinary day to be right on.
        for change in found or [datetime(options.first_year, 1, 1, tzinfo=UTC)]:
            for _ in range(options.cases):
                _compare(rng, zone, change, tally)
    print(f"{tally.ours} differences between ours and brute force")
    print(f"{tally.celerys} of the same cases are answered wrongly by Celery's own crontab")
    print(
        f"{tally.cases} cases, {tally.questions} questions, {len(names)} zones, "
        f"{moved.total()} changes {options.first_year}-{options.last_year}, "
        f"seed {options.seed}, {monotonic() - began:.0f} s"
    )
    print("clocks moved by " + ", ".join(f"{by} ({n}x)" for by, n in sorted(moved.items())))
    return 1 if tally.ours else 0


def _moved(zone: ZoneInfo, change: datetime) -> timedelta:
    (_, before), (_, after) = read_clock(zone, change - MINUTE, change + MINUTE)
    return abs(after - before - MINUTE)


def _compare(rng: Random, zone: ZoneInfo, change: datetime, tally: Tally) -> None:
    clock = read_clock(zone, change - AROUND, change + AROUND)
    fields = drawn_fields(rng, clock)
    asked = list(questions(rng, due_instants(fields, clock), clock))
    tally.cases += 1
    tally.questions += len(asked)
    ours = in_zone(crontab, fields, zone)
    wrong = first_wrong(ours, asked, change + AROUND)
    if wrong is not None:
        tally.ours += 1
        if tally.ours <= SHOWN:
            print(f"{zone} {fields}: after {wrong[0]} came {wrong[1]}, not {dict(asked)[wrong[0]]}")
    if first_wrong(in_zone(schedules.crontab, fields, zone), asked, change + AROUND):
        tally.celerys += 1


if __name__ == "__main__":
    sys.exit(run_command(main))
