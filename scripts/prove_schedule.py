"""Run the schedule over a whole year with two beats that are killed again and again.

    python -m scripts.prove_schedule                     2026, 200 kills
    python -m scripts.prove_schedule --minutely year     the every-minute entry all year too

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
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import reduce
from itertools import pairwise
from multiprocessing import get_context
from os import cpu_count
from random import Random
from zoneinfo import ZoneInfo

from app.tasks import celery_app
from scripts.arguments import command, number, run_command
from scripts.schedule_year.findings import DAY, Findings
from scripts.schedule_year.span import MINUTELY, README, run

SHOWN = 10


def main() -> int:
    parser = command("prove_schedule", __doc__)
    parser.add_argument("--year", type=number(1970, 2100), default=2026)
    parser.add_argument("--seed", type=number(), default=0)
    parser.add_argument(
        "--processes", type=number(1), default=cpu_count() or 1, help="side by side"
    )
    parser.add_argument("--kills", type=number(0), default=200, help="kills in the year (200)")
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
    sys.exit(run_command(main))
