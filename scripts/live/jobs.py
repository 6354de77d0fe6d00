"""Tasks that leave countable marks: ``celery -A scripts.live.jobs worker``.

The real app and its settings, plus tasks for proofs and tests. Each start and each effect
is a row of a table without any unique key, so that whatever happens twice is counted twice.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Column, Float, Integer, MetaData, String, Table, delete, insert, select
from sqlalchemy.orm import Session

from app import clock, db
from app.domain.errors import TransientError
from app.tasks import BaseTask, celery_app

__all__ = ["celery_app"]

_metadata = MetaData()
_starts = Table(
    "job_starts",
    _metadata,
    Column("job", String),
    Column("at", Float),
    Column("host", String),
    Column("pid", Integer),
)
_effects = Table("job_effects", _metadata, Column("job", String), Column("at", Float))


@dataclass(frozen=True)
class Start:
    """One run of a job: when it began (UTC), and on which machine or in which container."""

    at: datetime
    host: str


def create_tables() -> None:
    """Make the two tables in the database in force, beside the app's own."""
    _metadata.create_all(db.engine())


def empty_tables() -> None:
    """Forget every start and every effect."""
    with db.transaction() as session:
        for table in (_starts, _effects):
            session.execute(delete(table))


def effects() -> Counter[str]:
    """How often each job had its effect."""
    with db.reading() as session:
        return Counter(session.scalars(select(_effects.c.job)))


def starts() -> Counter[str]:
    """How often each job was started."""
    with db.reading() as session:
        return Counter(session.scalars(select(_starts.c.job)))


def start_order() -> list[str]:
    """The jobs in the order in which they were started."""
    with db.reading() as session:
        return list(session.scalars(select(_starts.c.job).order_by(_starts.c.at)))


def starts_of(job: str) -> list[Start]:
    """Each run of ``job``, in order."""
    with db.reading() as session:
        chosen = select(_starts.c.at, _starts.c.host).where(_starts.c.job == job)
        rows = session.execute(chosen.order_by(_starts.c.at))
        return [Start(datetime.fromtimestamp(at, UTC), host) for at, host in rows]


def worker_pids(job: str) -> list[int]:
    """The processes that started ``job``, in order."""
    with db.reading() as session:
        chosen = select(_starts.c.pid).where(_starts.c.job == job).order_by(_starts.c.at)
        return list(session.scalars(chosen))


def mark_start(job: str) -> None:
    with db.transaction() as session:
        at = clock.utcnow().timestamp()
        host = socket.gethostname()
        session.execute(insert(_starts).values(job=job, at=at, host=host, pid=os.getpid()))


def have_effect(task: BaseTask, job: str) -> None:
    with task.transaction() as session:
        have_effect_in(session, job)


def have_effect_in(session: Session, job: str) -> None:
    session.execute(insert(_effects).values(job=job, at=clock.utcnow().timestamp()))


def run_job(task: BaseTask, job: str, seconds: float = 0.0) -> None:
    """What a job of another module does, too: mark its start, take its time, have its effect."""
    mark_start(job)
    time.sleep(seconds)
    have_effect(task, job)


@celery_app.task(base=BaseTask, bind=True, name="scripts.live.jobs.work")
def work(self: BaseTask, job: str, seconds: float = 0.0) -> str:
    """Run for ``seconds``, then have the effect."""
    run_job(self, job, seconds)
    return job


@celery_app.task(base=BaseTask, bind=True, name="scripts.live.jobs.effect")
def effect(self: BaseTask, job: str) -> None:
    """Have the effect at once, and mark no start: the cheapest job."""
    have_effect(self, job)


@celery_app.task(base=BaseTask, bind=True, name="scripts.live.jobs.fail_first")
def fail_first(self: BaseTask, job: str, failures: int, seconds: float = 0.2) -> str:
    """Fail transiently ``failures`` times, asking for a retry as the README does."""
    mark_start(job)
    try:
        if self.request.retries < failures:
            raise TransientError(f"failure {self.request.retries + 1}")
        have_effect(self, job)
    except Exception as error:
        raise self.retry(exc=error, countdown=seconds) from error
    return job


@celery_app.task(base=BaseTask, bind=True, name="scripts.live.jobs.fail")
def fail(self: BaseTask, job: str, kind: str) -> None:
    """Fail for good: ``kind`` is "transient", "permanent" or "assertion"."""
    mark_start(job)
    if kind == "transient":
        raise TransientError("never works")
    if kind == "assertion":
        raise AssertionError("never holds")
    raise ValueError("never valid")


@celery_app.task(base=BaseTask, bind=True, name="scripts.live.jobs.kill_child")
def kill_child(self: BaseTask, job: str, times: int) -> None:
    """Kill the process it runs in, the first ``times`` times."""
    mark_start(job)
    if starts()[job] <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    have_effect(self, job)


@celery_app.task(base=BaseTask, bind=True, name="scripts.live.jobs.run_and_terminate")
def run_and_terminate(self: BaseTask, job: str) -> None:
    """Run a program for ever, end it with SIGTERM, and have the effect if that ended it."""
    mark_start(job)
    program = subprocess.Popen(["/bin/sleep", "60"])
    program.terminate()
    try:
        program.wait(5)
        have_effect(self, job)
    finally:
        program.kill()


@celery_app.task(base=BaseTask, bind=True, name="scripts.live.jobs.effect_then_crash")
def effect_then_crash(self: BaseTask, job: str) -> None:
    """Commit the effect and die before the message is acknowledged."""
    mark_start(job)
    have_effect(self, job)
    os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
