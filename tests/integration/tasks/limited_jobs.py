"""Jobs with a rate limit: ``celery -A tests.integration.tasks.limited_jobs worker``."""

from app.tasks import BaseTask
from scripts.live.jobs import celery_app, run_job

__all__ = ["celery_app"]


@celery_app.task(base=BaseTask, bind=True, name="limited.slow", rate_limit="6/m")
def slow(self: BaseTask, name: str) -> None:
    run_job(self, name)


@celery_app.task(base=BaseTask, bind=True, name="limited.steady", rate_limit="2/s")
def steady(self: BaseTask, name: str, seconds: float = 0.0) -> None:
    run_job(self, name, seconds)
