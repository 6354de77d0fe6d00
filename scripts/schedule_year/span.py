"""Let two beats pass all due instants of a span, and compare with an oracle of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from random import Random
from time import monotonic
from zoneinfo import ZoneInfo

from scripts.prove_dst import Fields, due_instants, read_clock
from scripts.schedule_year.findings import DAY, Findings, by_day, by_instant
from scripts.schedule_year.world import made_world
from simulations.marketplace import timetable

MINUTE = timedelta(minutes=1)
MINUTELY = "health-check"


README = {
    name: Fields(
        set(entry.minutes),
        set(entry.hours),
        set(entry.days),
        set(entry.months),
        set(entry.weekdays),
    )
    for name, entry in timetable.README.items()
}


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
            missing=sorted((wanted - seen).elements(), key=by_instant),
            extra=sorted((seen - wanted).elements(), key=by_instant),
            pushed_twice=sum(1 for count in world.workers.pushed.values() if count > 1),
            kills=world.kills,
            ticks=world.ticks,
            torn=world.torn,
            by_day=by_day(seen, zone),
            right_by_day=by_day(wanted, zone),
            seconds=monotonic() - began,
        )
