"""Names of tasks, as an operator types them."""

from difflib import get_close_matches

from app.admin.arguments import UsageError


def check(name: str) -> None:
    """Raise ``UsageError`` for a task that the app does not know."""
    from app.tasks import celery_app  # the other topics start faster without Celery

    celery_app.loader.import_default_modules()
    known = sorted(task for task in celery_app.tasks if not task.startswith("celery."))
    if name not in known:
        similar = get_close_matches(name, known, n=1)
        hint = f": did you mean {similar[0]!r}?" if similar else ""
        raise UsageError(f"there is no task {name!r}{hint}")
