"""A task that prints: ``celery -A tests.integration.observing.printing worker``."""

from app.tasks import BaseTask, celery_app

__all__ = ["celery_app"]


@celery_app.task(base=BaseTask, bind=True, name="observing.say")
def say(self: BaseTask) -> None:
    print("said by print")  # noqa: T201
