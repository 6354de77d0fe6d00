"""``python simulations/day.py --app proj.celery:app``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path

from celery import Celery
from celery.app.utils import find_app
from redis.exceptions import RedisError
from rich.console import Console

from simulations.any_app import service_times
from simulations.any_app.outcome import AppOutcome, AppPlan
from simulations.any_app.replay import changing_days, span_of
from simulations.any_app.replay import replay as replay_app
from simulations.any_app.twin import names_of
from simulations.arguments import (
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
from simulations.engine.faults import ENGINE_FAULTS, parse
from simulations.engine.real_redis import NotEmptyError
from simulations.live import live
from simulations.report.axis import LocalAxis
from simulations.report.timeline import Timeline
from simulations.tables import table

MOST_PAIRS = 8


def main(arguments: Sequence[str]) -> int:
    """Exit status: 0 done, 2 bad arguments."""
    parser = _arguments()
    options = parser.parse_args(arguments)
    # The root of this repository must not hide a package of theirs with the same name.
    sys.path.insert(0, str(Path.cwd()))
    try:
        plan = _plan(options)
        check_files(json=options.json, trace=options.trace, report=options.report)
        theirs = _found(options.app)
        times = service_times.read(options.service_times, names_of(theirs), days=plan.days)
    except ValueError as error:
        parser.error(str(error))
    console = Console()
    start, end, zone = span_of(theirs, plan)
    timeline = None if options.report is None else Timeline(LocalAxis(start, end, zone))
    with (
        written_when_complete(options.trace) as into,
        live(console, start=start, end=end, zone=zone) as progress,
    ):
        try:
            outcome = replay_app(
                theirs,
                plan,
                times,
                trace_into=into,
                observers=() if timeline is None else (timeline.see,),
                progress=progress,
            )
        except (NotEmptyError, RedisError, ValueError) as error:
            if plan.broker_url is None:
                raise
            parser.error(f"--broker {plan.broker_url}: {error}; name an empty database")
    outcome = replace(outcome, changing_days=changing_days(theirs, plan.day))
    _show(console, outcome)
    write_json(options.json, outcome.as_dict())
    if timeline is not None:
        _write_report(options.report, outcome, timeline, end)
    return DONE


def _write_report(path: Path, outcome: AppOutcome, timeline: Timeline, end: datetime) -> None:
    # Imported only now: a plotting library takes a second, and no run needs it.
    from simulations.any_app.report import page_of
    from simulations.report.page import write

    with written_when_complete(path) as into:
        if into is not None:
            write(page_of(outcome, timeline, days_end=end), into)


def _arguments() -> Parser:
    parser = Parser(
        prog=PROGRAM,
        description="Replay the schedule, routes, limits and retries of any Celery app. Its "
        "tasks' bodies are not run, and nothing of it is contacted.",
    )
    add = parser.add_argument
    add_any_app(add, required=True)
    add("--date", type=a_date, default=date(2026, 7, 15))
    add("--days", type=number(1, 400), default=1)
    add("--seed", type=number(), default=1)
    add("--workers", type=number(1, 64), default=2)
    add("--concurrency", type=number(1, 256), default=4, help="slots of each worker")
    add("--beats", type=number(0, 8), default=1)
    add("--broker", metavar="URL", help="an empty Redis database, instead of memory")
    add("--fault", action="append", default=[], metavar="NAME@HH:MM[/DURATION]")
    add("--json", type=Path, metavar="FILE")
    add("--trace", type=Path, metavar="FILE")
    add("--report", type=Path, metavar="FILE", help="write a page to read: one HTML file")
    return parser


def _plan(options: argparse.Namespace) -> AppPlan:
    return AppPlan(
        app=options.app,
        day=options.date,
        days=options.days,
        seed=options.seed,
        workers=options.workers,
        concurrency=options.concurrency,
        beats=options.beats,
        broker_url=options.broker,
        service_times=None if options.service_times is None else str(options.service_times),
        faults=tuple(parse(text, ENGINE_FAULTS) for text in options.fault),
    )


def _found(name: str) -> Celery:
    try:
        found = find_app(name)
    except Exception as error:
        module, _, attribute = name.partition(":")
        if attribute and module in sys.modules and not hasattr(sys.modules[module], attribute):
            raise ValueError(f"--app {name}: {module} has no {attribute}") from error
        raise ValueError(
            f"--app {name}: {type(error).__name__}: {error}; name it as celery -A takes it, from "
            "the folder that you start it in"
        ) from error
    if not isinstance(found, Celery):
        raise ValueError(f"--app {name}: that is no Celery app but a {type(found).__name__}")
    return found


def _show(console: Console, outcome: AppOutcome) -> None:
    plan, peak = outcome.plan, outcome.peak
    days = "a day" if plan.days == 1 else f"{plan.days} days"
    say = console.print
    say(
        f"{plan.app}, {days} from {plan.day}, {outcome.timezone}, {plan.workers} workers of "
        f"{plan.concurrency} slots: {outcome.events:,} events in {outcome.wall_seconds:.1f} s",
        highlight=False,
    )
    for warning in outcome.warnings:
        say(f"warning: {warning}", highlight=False, markup=False, soft_wrap=True)
    if peak.deepest:
        say(
            f"The backlog is deepest in the hour from {peak.begins}: {peak.deepest:,} messages, "
            f"most of them in {peak.queue}; {peak.busiest} of {outcome.slots} slots are in use.",
            highlight=False,
        )
    if outcome.left:
        left = "1 task was" if outcome.left == 1 else f"{outcome.left:,} tasks were"
        say(f"At the end {left} still to be done.", highlight=False)
    head = ("queue", "published", "deepest", "waited p50 s", "p99 s", "longest s")
    keys = ("published", "max_depth", "wait_p50", "wait_p99", "wait_max")
    say(table(head, ((name, *(row[key] for key in keys)) for name, row in outcome.queues.items())))
    names = sorted(outcome.beat)
    changing = outcome.changing_days
    rows = ((name, outcome.beat[name], *(day[name] for day in changing.values())) for name in names)
    say(table(("beat entry", "runs", *changing), rows))
    ends = ("runs", "succeeded", "retried", "failed")
    say(
        table(
            ("task", *ends),
            ((name, *(each.get(end, 0) for end in ends)) for name, each in outcome.tasks.items()),
        )
    )
    together = list(outcome.together.items())[:MOST_PAIRS]
    if together:
        say(table(("entries due at the same instant", "times"), together))
    say(f"trace {outcome.trace_hash}", highlight=False)
    say(f"repeat: {plan.command}", highlight=False, markup=False, soft_wrap=True)
