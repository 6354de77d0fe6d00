"""Tasks that do nothing: ``celery -A scripts.live.noop_jobs worker``.

The real app and its settings, so what differs between the first two is the base class alone.
"""

from __future__ import annotations

from celery import Task

from app.tasks import BaseTask, celery_app

__all__ = ["celery_app"]

OPTIONS = {"ignore_result": True, "max_retries": BaseTask.max_retries}


@celery_app.task(base=Task, bind=True, name="scripts.live.noop_jobs.bare", **OPTIONS)  # type: ignore[call-overload,untyped-decorator]
def bare(self: Task) -> None:  # type: ignore[type-arg]
    """Celery's own task."""


@celery_app.task(base=BaseTask, bind=True, name="scripts.live.noop_jobs.ours", **OPTIONS)
def ours(self: BaseTask) -> None:
    """Ours, without a guarded effect."""


@celery_app.task(base=BaseTask, bind=True, name="scripts.live.noop_jobs.guarded", **OPTIONS)
def guarded(self: BaseTask) -> None:
    """Ours, with the guard around an effect that does nothing."""
    with self.transaction():
        pass
