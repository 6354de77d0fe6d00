"""Stopping workers in an orderly way, under load."""

from __future__ import annotations

import time
import tomllib
from dataclasses import dataclass
from itertools import count
from threading import Event, Thread
from types import TracebackType
from typing import Self

from sqlalchemy import text

from app import db, outbox, routing
from scripts.faults import figures
from scripts.faults.load import Load
from scripts.faults.rounds import held, wait_until
from scripts.faults.stage import Stage
from scripts.faults.strikes import docker
from scripts.live import queue_jobs
from scripts.live.deployment import REPOSITORY

BOOKINGS_JOB = queue_jobs.name_of(routing.queue_for("app.tasks.bookings."))
JOB_SECONDS = 2.0
STARTED_JOBS = 12
STARTED_SECONDS = 120.0
DRAIN_SECONDS = 300.0
BOOKING_SECONDS = 0.05
BOOKINGS_PER_SECOND = 10.0
BACKGROUND_SECONDS = 0.2
STOP_TIMEOUT = "660"
"""Seconds, as in the compose file: longer than the longest task."""
HEALTHY_SECONDS = 180.0

_STARTED = text("SELECT count(DISTINCT job), count(*) FROM job_starts WHERE job LIKE :name || ' %'")
_WAITS = text(
    "SELECT begun.at - extract(epoch FROM published_at), begun.at - extract(epoch FROM created_at)"
    " FROM outbox_entries JOIN (SELECT job, min(at) AS at FROM job_starts GROUP BY job) AS begun"
    " ON begun.job = outbox_entries.key WHERE key LIKE :name || ' %'"
)


def bookings_objective() -> float:
    """So many seconds 99 of 100 messages of bookings may wait: the load tests' objective."""
    objectives = tomllib.loads((REPOSITORY / "loadtests" / "objectives.toml").read_text())
    return float(objectives["bookings"]["in_queue"]["p99"])


@dataclass(frozen=True)
class Stopped:
    """A stop under load, and what it left to those who come after."""

    seconds: float
    exit_statuses: tuple[int, ...]
    held: int
    """Messages that the stopped workers still held: nobody else could take them."""
    unfinished: int
    """Jobs that were started and had no effect before the stop."""
    jobs: int
    lost: int
    doubled: int
    started_twice: int

    def __str__(self) -> str:
        return (
            f"docker-compose stop under load: {self.seconds:.0f} s; of {self.jobs} jobs "
            f"{self.lost} lost, {self.doubled} doubled, {self.started_twice} started twice"
        )


def stop_under_load(stage: Stage, jobs: int, *, name: str) -> Stopped:
    """Stop workers and beats in the middle of ``jobs`` jobs, start them again, and count."""
    workers = stage.names("celery_worker")
    with Load(name, jobs, seconds=1, long_every=1, long_seconds=JOB_SECONDS) as load:
        load.wait_until_planned(timeout=STARTED_SECONDS)
        wait_until(lambda: _started(name)[0] >= STARTED_JOBS, STARTED_SECONDS)
        began = time.monotonic()
        stage.compose.run("stop", "celery_worker", "celery_beat", timeout=700)
        seconds = time.monotonic() - began
        statuses = tuple(
            int(docker("inspect", "--format", "{{.State.ExitCode}}", worker).stdout)
            for worker in workers
        )
        unfinished = _started(name)[0] - figures.count(name).done
        left = len(held())
        stage.compose.run("start", "celery_worker", "celery_beat")
        wait_until(lambda: figures.count(name).pending == 0, DRAIN_SECONDS)
    stage.compose.wait_until_healthy()
    counted, (started, starts) = figures.count(name), _started(name)
    return Stopped(
        seconds,
        statuses,
        held=left,
        unfinished=unfinished,
        jobs=jobs,
        lost=jobs - counted.done,
        doubled=counted.doubled,
        started_twice=starts - started,
    )


def _started(name: str) -> tuple[int, int]:
    """Different jobs that were started, and how often jobs were."""
    with db.reading() as session:
        started, starts = session.execute(_STARTED, {"name": name}).one()
    return started, starts


@dataclass(frozen=True)
class Rolled:
    """A rolling restart, and how long bookings waited meanwhile."""

    seconds: float
    bookings: int
    lost: int
    doubled: int
    p50: float
    p99: float
    longest: float
    """Seconds from a message's publication to its start."""
    p99_from_commit: float
    """Seconds from the commit of who planned it."""

    def __str__(self) -> str:
        return (
            f"rolling restart in {self.seconds:.0f} s; of {self.bookings} bookings {self.lost} "
            f"lost, {self.doubled} doubled; time in queue p50 {self.p50:.2f} s, "
            f"p99 {self.p99:.2f} s, longest {self.longest:.2f} s; "
            f"from the commit p99 {self.p99_from_commit:.2f} s"
        )


def restart_one_by_one(stage: Stage, *, name: str, background: int) -> Rolled:
    """Restart each worker, the next when the one before is healthy, while people book.

    Behind the bookings waits a backlog of ``background`` less urgent jobs, so that no slot
    is ever idle.
    """
    behind = f"{name}-background"
    with Load(behind, background, seconds=1, long_every=1, long_seconds=BACKGROUND_SECONDS) as load:
        load.wait_until_planned(timeout=DRAIN_SECONDS)
        began = time.monotonic()
        with _Bookings(name) as bookings:
            for worker in stage.names("celery_worker"):
                docker("stop", "--time", STOP_TIMEOUT, worker)
                docker("start", worker)
                stage.compose.wait_until_healthy(timeout=HEALTHY_SECONDS)
        seconds = time.monotonic() - began
        for each in (name, behind):
            wait_until(lambda each=each: figures.count(each).pending == 0, DRAIN_SECONDS)  # type: ignore[misc]
    counted = figures.count(name)
    with db.reading() as session:
        rows = session.execute(_WAITS, {"name": name}).all()
    from_publication, from_commit = (sorted(map(float, waits)) for waits in zip(*rows, strict=True))
    return Rolled(
        seconds,
        bookings.planned,
        lost=bookings.planned - counted.done,
        doubled=counted.doubled,
        p50=_percentile(from_publication, 0.5),
        p99=_percentile(from_publication, 0.99),
        longest=from_publication[-1],
        p99_from_commit=_percentile(from_commit, 0.99),
    )


def _percentile(ordered: list[float], part: float) -> float:
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


class _Bookings:
    """A context in which somebody books every tenth of a second."""

    def __init__(self, name: str) -> None:
        self.planned = 0
        self._name = name
        self._over = Event()
        self._failed: Exception | None = None
        self._thread = Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        if self._failed is not None and error is None:
            raise self._failed

    def _run(self) -> None:
        try:
            self._book()
        except Exception as failed:
            self._failed = failed

    def _book(self) -> None:
        for number in count():
            if self._over.wait(1 / BOOKINGS_PER_SECOND):
                return
            job = f"{self._name} {number}"
            with db.transaction() as session:
                outbox.enqueue(session, BOOKINGS_JOB, job, BOOKING_SECONDS, key=job)
            self.planned += 1
