"""Jobs whose worker is not told of their end: what a fault of a pool, or of Celery, is like.

``celery -A tests.integration.tasks.losing_slots worker``
"""

from typing import Any

from app.tasks import BaseTask
from app.tasks.counted_request import CountedRequest
from scripts.live.jobs import celery_app, mark_start

__all__ = ["celery_app"]


class LosingRequest(CountedRequest):
    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.on_success = lambda *_, **__: None  # type: ignore[method-assign]


@celery_app.task(base=BaseTask, bind=True, name="losing.job")
def job(self: BaseTask, job: str) -> None:
    mark_start(job)


job.Request = f"{__name__}:{LosingRequest.__name__}"
