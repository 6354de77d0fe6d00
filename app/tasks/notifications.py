"""What people are told inside the app."""

from dataclasses import asdict
from typing import Any

from app import clock
from app.models import NotificationKind
from app.services import broadcasts, notifications
from app.tasks.base import BaseTask
from app.tasks.celery_app import celery_app


@celery_app.task(base=BaseTask, bind=True, name="app.tasks.notifications.notify_booking")
def notify_booking(self: BaseTask, booking_id: int, kind: str) -> dict[str, Any]:
    """Tell both sides of a lesson what happened to it."""
    with self.transaction() as session:
        created = notifications.notify_booking(
            session, booking_id, NotificationKind(kind), now=clock.utcnow()
        )
        return {"created": created}


@celery_app.task(base=BaseTask, bind=True, name="app.tasks.notifications.broadcast")
def broadcast(self: BaseTask, broadcast_id: int, after_user_id: int = 0) -> dict[str, Any]:
    """Tell a page of readers; the next page is an entry of its own."""
    with self.transaction() as session:
        page = broadcasts.write_page(
            session, broadcast_id, after_user_id=after_user_id, now=clock.utcnow()
        )
        return asdict(page)
