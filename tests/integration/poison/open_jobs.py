"""A task that takes whatever arguments come: ``celery -A tests.integration.poison.open_jobs``."""

from typing import Any

from app.tasks import BaseTask
from scripts.live.jobs import celery_app, have_effect

__all__ = ["celery_app"]


@celery_app.task(base=BaseTask, bind=True, name="open.job")
def job(self: BaseTask, *args: Any, **kwargs: Any) -> None:
    """Have an effect under the message's id."""
    have_effect(self, str(self.request.id))


@celery_app.task(base=BaseTask, bind=True, name="open.strict_job")
def strict_job(self: BaseTask, number: int) -> None:
    """As ``job``, of one number."""
    have_effect(self, str(self.request.id))
