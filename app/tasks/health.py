"""Is everything that the work needs there? Also ``python -m app.tasks.health``."""

import argparse
import json
import logging
import sys
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import replace
from datetime import timedelta
from itertools import chain
from typing import Any, NoReturn

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from app import clock, closed_pipe, db, routing
from app.adapters.redis_connection import trouble
from app.outbox import BrokerUnavailableError
from app.outbox.figures import Retrying
from app.outbox.publish import attached
from app.outbox.schedule import MOST_CLOCK_ERROR
from app.services import health, queues
from app.services.health import Health, Limits
from app.settings import load_settings, warnings
from app.tasks import time_limits
from app.tasks.active_queues import (
    outages_of_workers,
    pools_of_workers,
    queues_by_worker,
    shared_name,
)
from app.tasks.base import BaseTask
from app.tasks.celery_app import celery_app

logger = logging.getLogger(__name__)

COMMAND = "python -m app.tasks.health"
ATTEMPTS = 3
"""So many times workers are asked, each for a second, until every queue is one's."""
NO_WORKER = (
    f"no worker answers within {ATTEMPTS} s: does one run? "
    "(one of a solo pool answers only between two tasks)"
)


@celery_app.task(base=BaseTask, bind=True, name="app.tasks.health.health_check")
def health_check(self: BaseTask) -> dict[str, Any]:
    """Look at database, Redis, queues, beat and dead letters; log and return what was found."""
    found = check()
    if found.healthy:
        logger.info("healthy")
    for problem in found.problems:
        logger.error("not healthy: %s", problem)
    return found.as_dict()


def check() -> Health:
    """Look at everything, with the limits of the settings. Raises nothing."""
    settings = load_settings()
    limits = Limits(
        queue_age=timedelta(seconds=settings.health_queue_age_seconds),
        unpublished=timedelta(seconds=settings.health_unpublished_seconds),
        beat=timedelta(seconds=settings.health_beat_seconds),
        dead_letters=settings.health_dead_letters,
        retrying=timedelta(seconds=settings.health_retrying_seconds),
        clock=min(MOST_CLOCK_ERROR, timedelta(seconds=settings.worker_clock_tolerance_seconds)),
    )
    return health.check(attached(), now=clock.utcnow(), limits=limits)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (--help says what there is)\n")


def main(arguments: Sequence[str]) -> int:
    """The command: exit status 0 where all is well, 1 where it is not."""
    parser = _Parser(
        prog=COMMAND,
        description="Is all well? Exit status 0: yes; 1: no, and what; 2: mistyped.",
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for machines")
    chosen = parser.parse_args(arguments)
    sys.stderr.writelines(f"{line}\n" for line in warnings())
    found = check()
    workers, pools = None, []
    if found.queues is not None:
        paused = () if found.records is None else found.records.paused
        workers, of_workers = _ask_workers(expected=found.queues.keys() - paused)
        of_workers += _of_outages(workers or 0)
        found = replace(found, problems=(*found.problems, *_of_eviction(), *of_workers))
        pools = _pools(workers or 0)
    if chosen.json:
        told = found.as_dict() | {"workers": workers, "pools": pools}
        print(json.dumps(told, indent=2))  # noqa: T201
    else:
        lines = [*_lines(found), *([] if workers is None else [f"workers       {workers} answer"])]
        lines += _lines_of_pools(pools)
        paused_now = _paused(found)
        if found.healthy:
            verdict = [f"healthy, but {paused_now}" if paused_now else "healthy"]
        else:
            verdict = [*found.problems, *([paused_now] if paused_now else [])]
        print("\n".join([*verdict, "", *lines]))  # noqa: T201
    return 0 if found.healthy else 1


def _paused(found: Health) -> str | None:
    """One line on the paused queues: not a problem, because an operator chose it."""
    if found.records is None or not found.records.paused:
        return None
    try:
        with db.reading() as session:
            since = queues.paused(session)
    except SQLAlchemyError:
        return None  # it answered a moment ago, and will be a problem at the next look
    if not since:
        return None
    each = [f"{name} is paused since {at:%Y-%m-%d %H:%M} UTC" for name, at in since.items()]
    return f"{', '.join(each)}: python -m app.admin queues resume {' '.join(since)}"


def _ask_workers(expected: Set[str]) -> tuple[int | None, list[str]]:
    """How many answer, and what is wrong with that."""
    found: dict[str, list[frozenset[str]]] = {}
    unserved = expected
    for _ in range(ATTEMPTS):
        try:
            answers = queues_by_worker(celery_app, timeout=1.0)
        except (OperationalError, RedisError, OSError) as error:
            return None, [trouble(error)]
        # Of workers that share a name one may have been late before.
        found |= {name: of for name, of in answers.items() if len(of) >= len(found.get(name, ()))}
        unserved = expected - frozenset().union(*chain.from_iterable(found.values()))
        if found and not unserved:
            break
    problems = [shared_name(name, len(of)) for name, of in sorted(found.items()) if len(of) > 1]
    if found and unserved:
        names = ",".join(spec.name for spec in routing.QUEUES if spec.name in unserved)
        problems.append(
            f"no worker takes from {names}: start one with -Q {names}, or one without -Q"
        )
    return sum(map(len, found.values())), problems if found else [NO_WORKER]


def _of_outages(workers: int) -> list[str]:
    """One line for each worker that takes no messages because it cannot reach the database."""
    if not workers:
        return []
    try:
        outages = outages_of_workers(celery_app, timeout=1.0, most=workers)
    except (OperationalError, RedisError, OSError):
        return []  # they answered a moment ago
    return [
        f"{worker} has taken no messages for {seconds:.0f} s, the database does not answer it: "
        f"{reason}"
        for worker, seconds, reason in outages
    ]


def _pools(workers: int) -> list[dict[str, Any]]:
    """The pool of each of so many workers, and the time limits that it ignores."""
    if not workers:
        return []
    try:
        answers = pools_of_workers(celery_app, timeout=1.0, most=workers)
    except (OperationalError, RedisError, OSError):
        return []  # they answered a moment ago
    return [
        {"worker": worker, "pool": pool, "not_enforced": list(time_limits.not_enforced(pool))}
        for worker, pool in answers
    ]


def _lines_of_pools(pools: Sequence[dict[str, Any]]) -> list[str]:
    lines = []
    for pool, number in sorted(Counter(each["pool"] for each in pools).items()):
        ignored = time_limits.not_enforced(pool)
        limits = f", {time_limits.kinds(ignored)} are not enforced" if ignored else ""
        lines.append(f"{'pool ' + pool:<13} {number}{limits}")
    return lines


def _of_eviction() -> list[str]:
    broker = attached()
    try:
        risk = broker.memory().risk if broker is not None else None
    except BrokerUnavailableError:
        return []  # not every user of Redis may ask
    return [risk] if risk is not None else []


def _lines(found: Health) -> list[str]:
    lines = []
    if found.records is not None:
        outbox, dead = found.records.outbox, found.records.dead_letters
        lines += [
            f"beat          last fired {_ago(found.records.beat.last_fired_seconds)}",
            f"outbox        {outbox.published:,} under way, {outbox.unpublished:,} due and not "
            f"published, {outbox.later:,} later",
            f"dead letters  {dead.number:,}, {dead.recent:,} within an hour, the newest "
            f"{_ago(dead.newest_seconds)}",
            *(_of_retrying(task, entries) for task, entries in found.records.retrying.items()),
        ]
    if found.queues is not None:
        paused = () if found.records is None else found.records.paused
        for name, queue in found.queues.items():
            waited = queue.oldest_seconds
            oldest = "" if waited is None else f", the oldest for {waited:.0f} s"
            resting = ", paused" if name in paused else ""
            lines.append(f"{name:<13} {queue.waiting:,} waiting{oldest}{resting}")
    return lines


def _of_retrying(task: str, entries: Retrying) -> str:
    oldest = entries.oldest_seconds
    age = "" if oldest is None else f", the oldest for {oldest:.0f} s"
    error = f": {entries.error}" if entries.error else ""
    return f"retrying      {entries.number:,} of {task}{age}{error}"


def _ago(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.0f} s ago"


if __name__ == "__main__":
    sys.exit(closed_pipe.survive(lambda: main(sys.argv[1:])))
