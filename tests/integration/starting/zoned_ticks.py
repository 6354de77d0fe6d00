"""A schedule that depends on ``CELERY_TIMEZONE`` within seconds.

``celery -A tests.integration.starting.zoned_ticks beat``. A crontab would need minutes.
"""

from datetime import UTC, datetime, timedelta

from celery.schedules import BaseSchedule

from scripts.live.jobs import celery_app

__all__ = ["celery_app"]


PERIOD = 6  # seconds


class Seconds(BaseSchedule):
    """Due every six seconds; in UTC at multiples of six, in another time zone between them."""

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        remainder = 0 if str(self.tz) == "UTC" else PERIOD // 2
        due = last_run_at.astimezone(UTC).replace(microsecond=0) + timedelta(seconds=1)
        while due.second % PERIOD != remainder:
            due += timedelta(seconds=1)
        return due - self.now()

    def __repr__(self) -> str:
        return "<every six seconds>"


celery_app.conf.beat_schedule = {
    "tick": {
        "task": "scripts.live.jobs.effect",
        "schedule": Seconds(),
        "args": ("tick",),
        "options": {"catch_up": "each"},
    }
}
