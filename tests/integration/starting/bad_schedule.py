"""An app whose schedule cannot be kept: ``celery -A tests.integration.starting.bad_schedule``."""

from app.tasks import celery_app

__all__ = ["celery_app"]

celery_app.conf.beat_schedule = {
    "remind": {"task": "app.tasks.bookings.send_due_reminder", "schedule": 60.0}
}
