"""The README's task, word for word apart from what it computes."""

from app.tasks import BaseTask, celery_app


@celery_app.task(base=BaseTask, name="app.tasks.module.task_name", bind=True, max_retries=3)
def my_task(self, arg1, arg2):  # type: ignore[no-untyped-def]
    try:
        result = arg1 / arg2
        return {"status": "success", "result": result}
    except Exception as exc:
        raise self.retry(exc=exc, countdown=60 * (2**self.request.retries))  # noqa: B904
