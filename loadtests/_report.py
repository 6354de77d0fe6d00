"""What a load test says: before it starts, and of each queue at the end."""

from __future__ import annotations

import logging
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from locust.env import Environment
from rich.console import Console
from rich.table import Table

from app.routing import QUEUES
from loadtests import _database, _made_up_people, _objectives, _target
from loadtests._figures import LocustFigures
from loadtests._ledger import Measure
from loadtests._objectives import Miss
from loadtests._target import Target

logger = logging.getLogger("loadtests")

PARTS = (0.5, 0.95, 0.99)
FILE_WIDTH = 160
"""As wide as locust's own tables."""


def announce(
    target: Target,
    environment: Environment,
    *,
    workers: Mapping[str, Collection[str]],
    told: Collection[str],
) -> None:
    """Say what is about to be sent, and where to."""
    logger.info("load test of %s, and of nothing else", target.name)
    if environment.host and _target.names_password(environment.host):
        logger.warning("locust's reports show --host with its password: use REDIS_PASSWORD")
    logger.info("Celery workers that answer: %s", ", ".join(workers))
    if told:
        logger.info("told to send events of their tasks until the end: %s", ", ".join(sorted(told)))
    options: Any = environment.parsed_options
    for each in sorted(environment.user_classes, key=lambda each: each.__name__):
        logger.info("%s: %s", each.__name__, getattr(each, "sends", ""))
    logger.info("each user of a flood keeps %d messages waiting", options.backlog)
    if options.through_services:
        logger.info(
            "all of it through the services, in %s: made-up people book lessons, workers do the "
            "work and send mails to addresses in *.%s; at the end all of that is deleted",
            _database.shown(),
            _made_up_people.DOMAIN,
        )
    else:
        logger.info(
            "messages alone: no entry of an outbox belongs to them, so a worker reads its database "
            "once and skips each; nobody books, nothing is mailed. To book through the services, "
            "set DATABASE_URL to the deployment's database"
        )


def misses(environment: Environment) -> list[Miss]:
    """The objectives that this test has missed."""
    options: Any = environment.parsed_options
    objectives = _objectives.load(Path(options.objectives))
    return _objectives.misses(objectives, LocustFigures(environment.stats))


def is_good(environment: Environment) -> bool:
    """Whether something was measured, and all objectives were kept."""
    return _measured(environment) and not misses(environment)


def _measured(environment: Environment) -> bool:
    figures = LocustFigures(environment.stats)
    return any(figures.number(Measure.IN_QUEUE, spec.name) for spec in QUEUES)


def verdict(environment: Environment) -> list[str]:
    """The verdict first, then what was missed."""
    if not _measured(environment):
        return ["nothing was measured"]
    missed = misses(environment)
    if not missed:
        return ["all objectives were kept"]
    return [f"objectives missed: {', '.join(_objectives.by_queue(missed))}", *map(str, missed)]


def print_all(environment: Environment) -> None:
    """Print the table and the verdict."""
    # Without a terminal rich takes it for a narrow one.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else FILE_WIDTH)
    console.print(_table(environment))
    style = None if is_good(environment) else "bold red"
    for line in verdict(environment):
        console.print(line, style=style)


def rows(environment: Environment) -> list[dict[str, Any]]:
    """A row for each queue of which something was measured, the most urgent first."""
    figures = LocustFigures(environment.stats)
    missed = _objectives.by_queue(misses(environment))
    found = []
    for spec in QUEUES:
        number = figures.number(Measure.IN_QUEUE, spec.name)
        if not number:
            continue
        row: dict[str, Any] = {"queue": spec.name, "messages": number}
        for measure in Measure:
            for part in PARTS:
                row[_key(measure, part)] = _shown(figures.percentile(measure, spec.name, part))
        row["objectives"] = (
            "; ".join(
                f"{each.objective.percentile} {each.objective.measure} > "
                f"{each.objective.seconds:g} s"
                for each in missed[spec.name]
            )
            if spec.name in missed
            else "kept"
        )
        found.append(row)
    return found


def columns() -> list[tuple[str, str]]:
    """Keys of a row, and what stands above them."""
    return [
        ("queue", "queue"),
        ("messages", "messages"),
        *(
            (_key(measure, part), f"{measure} p{100 * part:g}")
            for measure in Measure
            for part in PARTS
        ),
        ("objectives", "objectives"),
    ]


def _key(measure: Measure, part: float) -> str:
    return f"{measure.name.lower()}_p{100 * part:g}"


def _shown(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.3g} s"


def _table(environment: Environment) -> Table:
    table = Table(title="Time in queue and run time by queue", title_justify="left", box=None)
    for key, title in columns():
        words = key in {"queue", "objectives"}
        table.add_column(title, justify="left" if words else "right", no_wrap=not words)
    for row in rows(environment):
        style = "" if row["objectives"] == "kept" else "bold red"
        table.add_row(*(str(row[key]) for key, _ in columns()), style=style)
    return table
