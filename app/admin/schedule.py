"""``python -m app.admin schedule``: what beat will fire, and when."""

import argparse
import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from app import clock
from app.admin.arguments import UsageError, add_json, day
from app.admin.output import as_json, several
from app.domain.calendar import day_start
from app.domain.errors import one_line
from app.settings import load_settings

HORIZON = timedelta(days=1)
"""How far it looks where no date is given."""
SHOWN = 12
"""Runs of one entry that are listed for a person; of more, the first and the last few."""
EDGE = 3
LONGEST = timedelta(days=366, hours=1)
"""A leap year, and the hour by which the clocks may differ at its ends."""
MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, order=True)
class Run:
    """One due instant of one entry."""

    utc: datetime
    entry: str
    task: str


def add_to(topics: Any) -> None:
    """Add the topic to the parser."""
    topic = topics.add_parser(
        "schedule",
        help="what beat will fire and when",
        description="What beat will fire, in local time and UTC: the next 24 hours, or whole "
        "days in the schedule's time zone.",
    )
    topic.add_argument("--from", dest="first", type=day, metavar="DATE", help="the first day")
    topic.add_argument(
        "--to",
        dest="last",
        type=day,
        metavar="DATE",
        help="the last day, included (default: the first)",
    )
    add_json(topic)
    topic.set_defaults(run=_run)


def _run(chosen: argparse.Namespace) -> int:
    zone = ZoneInfo(load_settings().celery_timezone)
    start, end = _span(chosen, zone)
    found = list(runs(start, end))
    if chosen.json:
        as_json(
            [
                {"entry": run.entry, "task": run.task, "local": _local(run, zone), "utc": run.utc}
                for run in found
            ]
        )
        return 0
    names = dict.fromkeys(sorted({run.entry for run in found}))
    print(
        f"{several(len(found), 'run')} of {several(len(names), 'beat entry')} in "
        f"{(end - start) / timedelta(hours=1):g} hours, {zone.key}"
    )
    print(f"from {_to_the_minute(start, zone)} to {_to_the_minute(end, zone)}")
    for name in names:
        of_entry = [run for run in found if run.entry == name]
        print()
        print(f"{one_line(name)} ({one_line(of_entry[0].task)}): {several(len(of_entry), 'run')}")
        if len(of_entry) <= SHOWN:
            _lines(of_entry, zone)
            continue
        _lines(of_entry[:EDGE], zone)
        print(f"  ... {len(of_entry) - 2 * EDGE:,} more")
        _lines(of_entry[-EDGE:], zone)
    print()
    print("--json lists every run; --from DATE --to DATE looks at other days")
    return 0


def runs(start: datetime, end: datetime) -> Iterator[Run]:
    """What beat fires from ``start`` until before ``end``, in order.

    Raises ``UsageError`` where beat would refuse the schedule.
    """
    # Not at the top: the other commands need no Celery, which takes a second to import.
    from app.tasks import celery_app, timetable
    from app.tasks.scheduler import OutboxScheduler

    try:
        timetable.check(celery_app)
    except timetable.ScheduleError as error:
        raise UsageError(str(error)) from error
    # As beat has it: Celery's own entries too, numbers made intervals.
    entries = OutboxScheduler(app=celery_app).schedule
    return heapq.merge(
        *(_of_entry(name, entry, start, end) for name, entry in sorted(entries.items()))
    )


def _of_entry(name: str, entry: Any, start: datetime, end: datetime) -> Iterator[Run]:
    from app.tasks.due import next_due

    due = next_due(entry.schedule, start - MICROSECOND)
    while due < end:
        yield Run(due, name, entry.task)
        due = next_due(entry.schedule, due)


def _span(chosen: argparse.Namespace, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """From when until before when; in UTC."""
    now = clock.utcnow()
    first, last = chosen.first, chosen.last
    if first is None and last is None:
        return now, now + HORIZON
    start = now if first is None else day_start(first, zone)
    last = last or first
    end = day_start(last + timedelta(days=1), zone)
    if end <= start:
        raise UsageError(
            f"python -m app.admin schedule: --to {last} is before "
            f"{'today' if first is None else f'--from {first}'}"
        )
    if end - start > LONGEST:
        raise UsageError(
            f"python -m app.admin schedule: {(end - start).days} days are more than {LONGEST.days}"
        )
    return start, end


def _to_the_minute(at: datetime, zone: ZoneInfo) -> str:
    return f"{at.astimezone(zone):%Y-%m-%d %H:%M %Z}"


def _local(run: Run, zone: ZoneInfo) -> datetime:
    return run.utc.astimezone(zone)


def _lines(shown: list[Run], zone: ZoneInfo) -> None:
    for run in shown:
        print(f"  {_local(run, zone):%a %Y-%m-%d %H:%M:%S %Z}   {run.utc:%Y-%m-%d %H:%M:%S} UTC")
