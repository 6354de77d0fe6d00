"""A countable job in each queue: ``celery -A scripts.live.queue_jobs worker``."""

from __future__ import annotations

from app.routing import QUEUES, QueueSpec
from app.tasks import BaseTask
from scripts.live.jobs import celery_app, run_job

__all__ = ["celery_app", "name_of"]


def name_of(spec: QueueSpec) -> str:
    """The task of the queue: its module is what routes it there."""
    return f"app.tasks.{spec.modules[0]}.live_job"


def live_job(self: BaseTask, job: str, seconds: float = 0.0) -> None:
    """Run for ``seconds``, then have the effect."""
    run_job(self, job, seconds)


for _spec in QUEUES:
    celery_app.task(base=BaseTask, bind=True, name=name_of(_spec))(live_job)
