"""Jobs of ``scripts.live.jobs``, planned from this process through the outbox, and counted."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Any

import kombu.pools
from sqlalchemy import func, select

from app import db, outbox, schema
from app.models import OutboxEntry, OutboxState
from app.settings import load_settings
from app.tasks.broker import RedisBroker
from app.tasks.celery_config import config
from scripts.live import jobs
from scripts.live.deployment import Deployment

POLL_SECONDS = 0.1
SETTINGS = (
    *("REDIS_URL", "REDIS_PASSWORD", "REDIS_SENTINEL_MASTER", "REDIS_SENTINEL_PASSWORD"),
    *("REDIS_TLS_CA", "DATABASE_URL", "SMTP_URL"),
)
CONNECTION = (
    *("broker_url", "broker_read_url", "broker_write_url", "broker_use_ssl"),
    *("broker_transport_options", "result_backend_transport_options"),
)
"""What Celery's configuration says of the way to Redis."""
A_JOBS = OutboxEntry.task.like("scripts.live.jobs.%")
"""Of the entries those of jobs: beat makes others."""


class PlannedJobs:
    """Plans jobs as the marketplace would, and counts what came of them."""

    def enqueue(self, task: str, *args: Any, **options: Any) -> str:
        """Plan one job by the last word of its task's name; returns the entry's id."""
        with db.transaction() as session:
            return outbox.enqueue(session, f"scripts.live.jobs.{task}", *args, **options)

    def enqueue_many(self, task: str, count: int, *args: Any, first: int = 0) -> None:
        """Plan ``count`` jobs, ``job-<first>`` and so on, in one transaction."""
        with db.transaction() as session:
            for number in range(first, first + count):
                outbox.enqueue(session, f"scripts.live.jobs.{task}", f"job-{number}", *args)

    def entry(self, entry_id: str) -> OutboxEntry:
        """The entry as it is now."""
        with db.reading() as session:
            return session.scalars(select(OutboxEntry).where(OutboxEntry.id == entry_id)).one()

    def states(self) -> Counter[OutboxState]:
        """How many of the jobs' entries are in each state."""
        with db.reading() as session:
            rows = session.execute(
                select(OutboxEntry.state, func.count()).where(A_JOBS).group_by(OutboxEntry.state)
            )
            return Counter(dict(rows.all()))

    def total(self, column: Any) -> int:
        """A column's sum over the jobs' entries, such as ``OutboxEntry.resent``."""
        with db.reading() as session:
            return session.scalar(select(func.sum(column)).where(A_JOBS)) or 0

    def wait_until(self, condition: Callable[[], bool], *, timeout: float) -> float:
        """Wait for ``condition`` up to ``timeout`` seconds; returns the seconds it took."""
        started = monotonic()
        while not condition():
            if monotonic() - started > timeout:
                seen = f"{dict(self.states())}, {len(jobs.effects())} effects"
                raise TimeoutError(f"after {timeout} s: {seen}")
            sleep(POLL_SECONDS)
        return monotonic() - started

    def wait_for_effects(self, count: int, *, timeout: float) -> float:
        """Wait until ``count`` different jobs have had their effect."""
        return self.wait_until(lambda: len(jobs.effects()) >= count, timeout=timeout)

    def wait_for_start(self, job: str, *, timeout: float = 30) -> float:
        """Wait until a job was started."""
        return self.wait_until(lambda: jobs.starts()[job] > 0, timeout=timeout)


def _forget_connections() -> None:
    """Make Celery's pools anew: they keep the URL that was in force when they were made."""
    kombu.pools.reset()
    jobs.celery_app._after_fork()  # type: ignore[attr-defined]  # celery-types lacks it


class JobBench(PlannedJobs):
    """Planned jobs, and the deployment whose workers run them."""

    def __init__(self, live: Deployment) -> None:
        self.live = live


@contextmanager
def job_bench(live: Deployment) -> Iterator[JobBench]:
    """Point this process at ``live``, and its processes at the jobs; undone at the end."""
    live.app = "scripts.live.jobs"
    given = {name: live.environment[name] for name in SETTINGS if name in live.environment}
    with planning(given):
        yield JobBench(live)


@contextmanager
def planning(settings: Mapping[str, str]) -> Iterator[None]:
    """Let this process plan jobs for workers with these settings; undone at the end.

    Their database gets the tables that jobs are counted in.
    """
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    load_settings.cache_clear()
    conf = jobs.celery_app.conf
    conf_before = {name: conf[name] for name in CONNECTION}
    url = load_settings().broker.for_celery()
    conf_now = {**config(load_settings()), "broker_read_url": url, "broker_write_url": url}
    conf.update({name: conf_now[name] for name in CONNECTION})
    _forget_connections()
    engine_before = db.use(None)
    broker_before = outbox.attach(
        RedisBroker(jobs.celery_app, timeout=load_settings().publish_timeout_seconds)
    )
    try:
        schema.prepare(db.engine())
        jobs.create_tables()
        yield
    finally:
        outbox.attach(broker_before)
        conf.update(conf_before)
        _forget_connections()
        made = db.use(engine_before)
        if made is not None:
            made.dispose()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        load_settings.cache_clear()
