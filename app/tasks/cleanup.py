"""Deleting what is too old to be of use."""

import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from functools import partial
from typing import Any

from app import clock, outbox
from app.services import cleanup
from app.services.cleanup import Deletion
from app.settings import load_settings
from app.tasks.base import BaseTask
from app.tasks.celery_app import celery_app

LONGEST_RUN = timedelta(seconds=30)
"""Then what is left goes on in a run of its own, and urgent work comes first."""
PAUSE_SECONDS = 0.05
"""Between two batches: a writer that waits for SQLite looks again only now and then."""


@celery_app.task(base=BaseTask, bind=True, name="app.tasks.cleanup.delete_expired_sessions")
def delete_expired_sessions(self: BaseTask) -> dict[str, Any]:
    """Delete sessions that have expired."""
    return _sweep(self, cleanup.expired_sessions(now=clock.utcnow()))


@celery_app.task(base=BaseTask, bind=True, name="app.tasks.cleanup.delete_old_notifications")
def delete_old_notifications(self: BaseTask) -> dict[str, Any]:
    """Delete notifications that were read long ago; then the other old rows."""
    deletions = cleanup.old_notifications(load_settings(), now=clock.utcnow())
    return _sweep(self, deletions, then=delete_old_rows.name)


@celery_app.task(base=BaseTask, bind=True, name="app.tasks.cleanup.delete_old_rows")
def delete_old_rows(self: BaseTask) -> dict[str, Any]:
    """Delete old work, dead letters, mails, password resets, broadcasts and beat definitions."""
    return _sweep(self, cleanup.old_rows(load_settings(), now=clock.utcnow()))


def _sweep(
    task: BaseTask, deletions: Mapping[str, Deletion], then: str | None = None
) -> dict[str, Any]:
    """Delete for a while; ``then`` is enqueued when nothing is left, ``task`` again before."""
    half_the_limit = timedelta(seconds=load_settings().task_soft_time_limit_seconds) / 2
    swept = cleanup.sweep(
        deletions,
        budget=min(LONGEST_RUN, half_the_limit),
        clock=clock.utcnow,
        pause=partial(time.sleep, PAUSE_SECONDS),
    )
    with task.transaction() as session:
        following = task.name if swept.more else then
        if following is not None:
            outbox.enqueue(session, following)
    return asdict(swept)
