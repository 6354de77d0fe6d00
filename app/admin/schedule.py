"""``python -m app.admin schedule``: what beat will fire, and when; what it fired last."""

import argparse
import heapq
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import select

from app import clock, db, schema
from app.admin import entries
from app.admin.arguments import UsageError, add_json, day
from app.admin.output import WIDTH, age, as_json, cut, several
from app.domain.calendar import day_start
from app.domain.errors import one_line
from app.models import OutboxEntry
from app.outbox.schedule import Standing, standings
from app.settings import load_settings

HORIZON = timedelta(days=1)
"""How far it looks where no date is given."""
SHOWN = 12
"""Runs of one entry that are listed for a person; of more, the first and the last few."""
EDGE = 3
LONGEST = timedelta(days=366, hours=1)
"""A leap year, and the hour by which the clocks may differ at its ends."""
MICROSECOND = timedelta(microseconds=1)
PURGED = "purged"
"""Shown as the state of a run whose outbox entry was deleted."""


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
        "days in the schedule's time zone. With --last, the last and the next run of each entry.",
    )
    topic.add_argument(
        "--last",
        dest="last_runs",
        action="store_true",
        help="each entry's last run, its result, its next run, and whether beats agree about it",
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
    if chosen.last_runs:
        return _run_last(chosen)
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
    print("--json lists every run. --from DATE --to DATE lists other days, --last the last runs")
    return 0


def runs(start: datetime, end: datetime) -> Iterator[Run]:
    """What beat fires from ``start`` until before ``end``, in order.

    Raises ``UsageError`` where beat would refuse the schedule.
    """
    return heapq.merge(*(_of_entry(name, entry, start, end) for name, entry in _entries().items()))


def _entries() -> dict[str, Any]:
    """The schedule as beat has it, by name: Celery's own entries too, numbers made intervals.

    Raises ``UsageError`` where beat would refuse it.
    """
    # Not at the top: the other commands need no Celery, which takes a second to import.
    from app.tasks import celery_app, timetable
    from app.tasks.scheduler import OutboxScheduler

    try:
        timetable.check(celery_app)
    except timetable.ScheduleError as error:
        raise UsageError(str(error)) from error
    return dict(sorted(OutboxScheduler(app=celery_app).schedule.items()))


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


@dataclass(frozen=True)
class LastAndNext:
    """The last and the next run of an entry."""

    entry: str
    task: str | None
    """``None`` where a beat has the entry and this code does not."""
    zone: Any
    next_due: datetime | None
    standing: Standing | None
    """``None`` where no beat has seen the entry."""
    run: OutboxEntry | None
    """The last run, where it was not purged."""

    def as_dict(self, now: datetime) -> dict[str, Any]:
        """For JSON."""
        standing, run = self.standing, self.run
        last = None
        if standing is not None and standing.last_run_due is not None:
            last = {
                **self._instants(standing.last_run_due),
                "enqueued_at": standing.last_run_at,
                "id": standing.last_run_id,
                "state": PURGED if run is None else run.state.value,
                "error": None if run is None else entries.last_error(run) or None,
            }
        overdue = None if self.next_due is None else (now - self.next_due).total_seconds()
        return {
            "entry": self.entry,
            "task": self.task,
            "time_zone": str(self.zone),
            "last_run": last,
            "next_run": None if self.next_due is None else self._instants(self.next_due),
            "overdue_seconds": overdue if overdue is not None and overdue > 0 else None,
            "definitions": [asdict(each) for each in (standing.kept if standing else ())],
            "conflict": standing is not None and standing.disagreed,
        }

    def _instants(self, at: datetime) -> dict[str, datetime]:
        return {"local": at.astimezone(self.zone), "utc": at}


def _run_last(chosen: argparse.Namespace) -> int:
    if chosen.first or chosen.last:
        raise UsageError("python -m app.admin schedule: --last takes no --from and no --to")
    now = clock.utcnow()
    found = [entry.as_dict(now) for entry in last_and_next(now)]
    if chosen.json:
        as_json(found)
        return 0
    conflicts = [entry["entry"] for entry in found if entry["conflict"]]
    zones = {entry["time_zone"] for entry in found}
    verdict = several(len(found), "beat entry")
    verdict += (
        f" in {len(zones)} time zones" if len(zones) > 1 else "".join(f", {z}" for z in zones)
    )
    if conflicts:
        verdict += f": beats disagree about {len(conflicts)} of them"
    print(verdict)
    for entry in found:
        print()
        heading = f"{entry['entry']} ({entry['task'] or 'not in the schedule of this code'})"
        print(one_line(f"{heading}, {entry['time_zone']}" if len(zones) > 1 else heading))
        for line in _of_last(entry):
            print(line)
    if conflicts:
        print()
        print("stop the beat that is wrong: docs/operations.md, BeatsDisagree")
    return 0


def _of_last(entry: dict[str, Any]) -> Iterator[str]:
    last, next_run = entry["last_run"], entry["next_run"]
    if last is None:
        yield "  last run    none yet"
    else:
        yield f"  last run    {_both(last)}   {last['state']}"
        if last["error"]:
            yield f"              {cut(one_line(last['error']), WIDTH - 14)}"
    if next_run is not None:
        overdue = entry["overdue_seconds"]
        late = "" if overdue is None else f"   overdue for {age(timedelta(seconds=overdue))}"
        yield f"  next run    {_both(next_run)}{late}"
    for each in entry["definitions"]:
        if entry["conflict"]:
            stands = "in force" if each["in_force"] else "not in force"
            said = f"{stands}, host {one_line(each['host'])}: {one_line(each['description'])}"
            yield f"  definition  {cut(said, WIDTH - 14)}"


def _both(at: dict[str, datetime]) -> str:
    return f"{at['local']:%a %Y-%m-%d %H:%M:%S %Z}   {at['utc']:%Y-%m-%d %H:%M:%S} UTC"


def last_and_next(now: datetime) -> Iterator[LastAndNext]:
    """The last and the next run of each entry that this code or a running beat has, by name.

    Raises ``UsageError`` where beat would refuse the schedule, and
    ``schema.DatabaseNotReadyError``.
    """
    known = _entries()
    from app.tasks.due import next_due

    schema.check(db.engine())
    with db.reading() as session:
        standing = standings(session, now=now)
        run_ids = [each.last_run_id for each in standing.values() if each.last_run_id]
        rows = session.scalars(select(OutboxEntry).where(OutboxEntry.id.in_(run_ids)))
        runs_by_id = {run.id: run for run in rows}
    others = {name for name, each in standing.items() if each.kept}
    for name in sorted({*known, *others}):
        entry, stands = known.get(name), standing.get(name)
        due = None if stands is None else stands.next_due
        if due is None and entry is not None:
            due = next_due(entry.schedule, now if stands is None else stands.seen.last_due)
        yield LastAndNext(
            entry=name,
            task=None if entry is None else entry.task,
            zone=ZoneInfo(load_settings().celery_timezone) if entry is None else entry.schedule.tz,
            next_due=due,
            standing=stands,
            run=None if stands is None else runs_by_id.get(stands.last_run_id or ""),
        )


def _to_the_minute(at: datetime, zone: ZoneInfo) -> str:
    return f"{at.astimezone(zone):%Y-%m-%d %H:%M %Z}"


def _local(run: Run, zone: ZoneInfo) -> datetime:
    return run.utc.astimezone(zone)


def _lines(shown: list[Run], zone: ZoneInfo) -> None:
    for run in shown:
        print(f"  {_local(run, zone):%a %Y-%m-%d %H:%M:%S %Z}   {run.utc:%Y-%m-%d %H:%M:%S} UTC")
