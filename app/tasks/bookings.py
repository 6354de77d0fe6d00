"""What happens to lessons as time passes."""

from dataclasses import asdict
from typing import Any

from app import clock
from app.services import lessons, reminders
from app.tasks.base import BaseTask
from app.tasks.celery_app import celery_app


@celery_app.task(base=BaseTask, bind=True, name="app.tasks.bookings.send_due_reminders")
def send_due_reminders(self: BaseTask) -> dict[str, Any]:
    """Plan the reminders that are due by now, also those that an outage held up."""
    with self.transaction() as session:
        return asdict(reminders.enqueue_due(session, now=clock.utcnow()))


# Not the due instant of the run: after an outage everything is settled that is over by now,
# and counts on the day on which it was.
@celery_app.task(base=BaseTask, bind=True, name="app.tasks.bookings.mark_no_shows")
def mark_no_shows(self: BaseTask) -> dict[str, Any]:
    """Settle the lessons whose time has come: no-shows, completed and expired ones."""
    with self.transaction() as session:
        return asdict(lessons.settle(session, now=clock.utcnow()))


@celery_app.task(base=BaseTask, bind=True, name="app.tasks.bookings.complete_finished")
def complete_finished(self: BaseTask) -> dict[str, Any]:
    """Complete the lessons that are over and to which both sides came."""
    with self.transaction() as session:
        return {"completed": lessons.complete_finished(session, now=clock.utcnow())}


@celery_app.task(base=BaseTask, bind=True, name="app.tasks.bookings.expire_pending")
def expire_pending(self: BaseTask) -> dict[str, Any]:
    """Cancel the lessons that begin without having been confirmed."""
    with self.transaction() as session:
        return {"expired": lessons.expire_pending(session, now=clock.utcnow())}
