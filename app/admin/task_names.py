"""Names of tasks, as an operator types them."""

from sqlalchemy import exists, select

from app import db
from app.admin.arguments import UsageError
from app.domain.errors import no_such
from app.models import OutboxEntry


def check(name: str) -> None:
    """Raise ``UsageError`` for a task that the app does not know and no entry ever had."""
    missing = missing_task(name)
    if missing is None:
        return
    with db.reading() as session:
        if not session.scalar(select(exists().where(OutboxEntry.task == name))):
            raise UsageError(missing)


def missing_task(name: str) -> str | None:
    """The message about a task that the app does not know; ``None`` where it knows it."""
    from app.tasks import celery_app, registry  # the other topics start faster without Celery

    celery_app.loader.import_default_modules()
    known = registry.names(celery_app)
    return None if name in known else no_such("task", name, known)
