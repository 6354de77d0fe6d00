"""Tasks that fail with a person in their hands: ``celery -A tests.integration.privacy.clumsy``."""

from app import db
from app.models import User
from app.tasks import BaseTask, celery_app

__all__ = ["celery_app"]


@celery_app.task(base=BaseTask, bind=True, name="clumsy.trip", max_retries=1)
def trip(self: BaseTask, user_id: int) -> None:
    """Fail over a person's address, while the name is a local variable."""
    with db.reading() as session:
        user = session.get_one(User, user_id)
        name, address = user.name, user.email
    raise ValueError(f"cannot greet {address}, with a name of {len(name)} signs")


@celery_app.task(base=BaseTask, bind=True, name="clumsy.double", max_retries=1)
def double(self: BaseTask, user_id: int) -> None:
    """Fail because the database refuses the same address twice."""
    with self.transaction() as session:
        user = session.get_one(User, user_id)
        session.add(
            User(role=user.role, name=user.name, email=user.email, time_zone=user.time_zone)
        )
