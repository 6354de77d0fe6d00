"""``python simulations/day.py``: replay days on virtual time."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import time
from pathlib import Path

from redis.exceptions import RedisError
from rich.console import Console

from simulations.arguments import (
    BROKEN,
    DONE,
    PROGRAM,
    Parser,
    a_date,
    add_any_app,
    check_files,
    number,
    write_json,
    written_when_complete,
)
from simulations.engine.faults import Fault, parse
from simulations.engine.real_redis import NotEmptyError
from simulations.marketplace import chaos, screen
from simulations.marketplace.faults import FAULTS
from simulations.marketplace.outcome import Outcome
from simulations.marketplace.plan import Plan
from simulations.marketplace.replay import CALM, Replay
from simulations.report.axis import LocalAxis
from simulations.report.timeline import Timeline

MOST_BOOKINGS = 100_000
"""A day, or in a storm."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 all invariants hold, 1 one is broken, 2 bad arguments."""
    parser = _arguments()
    options = parser.parse_args(arguments)
    if options.list_faults:
        screen.list_faults(FAULTS)
        return DONE
    try:
        plan = _plan(options)
        check_files(json=options.json, trace=options.trace, report=options.report)
    except ValueError as error:
        parser.error(str(error))
    if options.chaos:
        return _chaos(plan, options)
    return _day(parser, plan, options)


def _arguments() -> argparse.ArgumentParser:
    default = Plan()
    parser = Parser(
        prog=PROGRAM,
        description="Replay a day of beat and of a marketplace in seconds of wall time.",
    )
    add = parser.add_argument
    add("--date", type=a_date, default=default.day, help="the first day, such as 2026-11-01")
    add("--days", type=number(1, 400), default=default.days)
    add("--hours", type=number(1, 25), help="the last day is over after so many")
    add("--seed", type=number(), default=default.seed, help="also the first one of --chaos")
    add("--bookings", type=number(1, MOST_BOOKINGS), default=None, help="a day; 2000, in chaos 60")
    add("--instructors", type=number(1, 10_000), help="a tenth of the bookings")
    add("--workers", type=number(1, 64), default=default.workers)
    add("--concurrency", type=number(1, 256), default=default.concurrency, help="slots of each")
    add("--beats", type=number(1, 8), default=default.beats)
    add("--broker", metavar="URL", help="an empty Redis database, instead of memory")
    add("--storm", type=_storm, metavar="HH:MM/N", help="so many bookings within 5 minutes")
    add("--fault", action="append", default=[], metavar="NAME@HH:MM[/DURATION]")
    add("--list-faults", action="store_true", help="what can go wrong, and how it is written")
    add("--chaos", action="store_true", help="many days with drawn faults")
    add("--seeds", type=number(1, 1_000_000), help=f"days of chaos; {chaos.SEEDS}")
    add("--shrink", action="store_true", help="find the fewest faults that still break it")
    add("--json", type=Path, metavar="FILE", help="write the figures")
    add("--trace", type=Path, metavar="FILE", help="write every event, a JSON object a line")
    add("--report", type=Path, metavar="FILE", help="write a page to read: one HTML file")
    another = parser.add_argument_group(
        "any Celery app",
        "With --app the schedule, routes, limits and retries of that app are replayed. These "
        "options are added, and those of the marketplace are left out: --bookings, --chaos, "
        "--hours, --instructors, --list-faults, --seeds, --shrink, --storm.",
    )
    add_any_app(another.add_argument, required=False)
    return parser


def _storm(text: str) -> tuple[time, int]:
    found = re.fullmatch(r"([0-9]{2}:[0-9]{2})/([0-9]{1,6})", text)
    try:
        if found is None or not 1 <= int(found[2]) <= MOST_BOOKINGS:
            raise ValueError
        return time.fromisoformat(found[1]), int(found[2])
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a storm: write 09:00/5000, at most {MOST_BOOKINGS:,}"
        ) from None


def _plan(options: argparse.Namespace) -> Plan:
    if options.service_times is not None:
        raise ValueError("--service-times is for --app: add that, or leave --service-times out")
    faults: tuple[Fault, ...] = tuple(parse(text, FAULTS) for text in options.fault)
    if options.chaos and faults:
        raise ValueError("--chaos draws its own faults: leave --fault out, or leave --chaos out")
    if options.seeds is not None and not options.chaos:
        raise ValueError("--seeds is how many days of --chaos: add that, or leave --seeds out")
    if options.shrink and not options.chaos and not faults:
        raise ValueError("--shrink needs faults to leave out: add --chaos, or --fault")
    if options.chaos and (options.trace or options.report or options.broker):
        raise ValueError("--chaos runs many days: --trace, --report and --broker are for one")
    if options.chaos and options.hours:
        raise ValueError("--chaos draws its faults from whole days: leave --hours out")
    if options.hours and options.days == 1:
        _check_within(options, faults)
    bookings = options.bookings
    if bookings is None:
        bookings = chaos.BOOKINGS if options.chaos else Plan().bookings
    return Plan(
        day=options.date,
        days=options.days,
        hours=options.hours,
        seed=options.seed,
        bookings=bookings,
        instructors=options.instructors,
        workers=options.workers,
        concurrency=options.concurrency,
        beats=options.beats,
        broker_url=options.broker,
        storm=options.storm,
        faults=faults,
    )


def _check_within(options: argparse.Namespace, faults: Sequence[Fault]) -> None:
    begins = {str(fault): fault.at for fault in faults}
    if options.storm is not None:
        begins[f"the storm at {options.storm[0]:%H:%M}"] = options.storm[0]
    for what, at in begins.items():
        if at.hour >= options.hours:
            raise ValueError(f"{what} begins when the day of --hours {options.hours} is over")


def _day(parser: argparse.ArgumentParser, plan: Plan, options: argparse.Namespace) -> int:
    console = Console()
    with written_when_complete(options.trace) as into, ExitStack() as stack:
        try:
            replay = stack.enter_context(Replay(plan, trace_into=into))
        except (NotEmptyError, RedisError, ValueError) as error:
            if plan.broker_url is None:
                raise
            parser.error(
                f"--broker {plan.broker_url}: {error}; name an empty database, such as "
                "redis://localhost:6379/9"
            )
        timeline = None if options.report is None else _watched(replay)
        outcome = screen.watch(console, replay)
    if outcome.broken is not None and options.shrink:
        outcome = replace(outcome, fewest=chaos.shrink(plan, outcome.broken.name))
    screen.show(console, outcome)
    write_json(options.json, outcome.as_dict())
    if timeline is not None:
        _write_report(options.report, replay, outcome, timeline)
    return DONE if outcome.broken is None else BROKEN


def _watched(replay: Replay) -> Timeline:
    timeline = Timeline(LocalAxis(replay.start, replay.end + CALM, replay.zone))
    replay.deployment.trace.observe(timeline.see)
    return timeline


def _write_report(path: Path, replay: Replay, outcome: Outcome, timeline: Timeline) -> None:
    # Imported only now: a plotting library takes a second, and no run needs it.
    from simulations.marketplace.report import page_of
    from simulations.report.page import write

    with written_when_complete(path) as into:
        if into is not None:
            write(page_of(replay, outcome, timeline), into)


def _chaos(plan: Plan, options: argparse.Namespace) -> int:
    console = Console()
    seeds = options.seeds or chaos.SEEDS
    found = chaos.run(plan, seeds=seeds, progress=screen.Progress(console, seeds))
    broken = found.first_broken
    if broken is not None and broken.invariant is not None and options.shrink:
        found = replace(found, fewest=chaos.shrink(broken.plan, broken.invariant))
    screen.show_chaos(console, found)
    write_json(options.json, found.as_dict())
    return DONE if broken is None and not found.never_struck else BROKEN
