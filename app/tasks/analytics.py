"""Figures of the marketplace, a local day at a time."""

from dataclasses import asdict
from typing import Any
from zoneinfo import ZoneInfo

from app import clock
from app.services import analytics
from app.settings import load_settings
from app.tasks.base import BaseTask
from app.tasks.celery_app import celery_app


@celery_app.task(base=BaseTask, bind=True, name="app.tasks.analytics.generate_daily")
def generate_daily(self: BaseTask, date: str | None = None) -> dict[str, Any]:
    """Count a day (ISO 8601) of the schedule's time zone; else the one before it was due.

    A late run is so about the day that it was planned for.
    """
    with self.transaction() as session:
        return asdict(
            analytics.generate_daily(
                session, date, due_at=self.due_at, zone=_zone(), now=clock.utcnow()
            )
        )


@celery_app.task(base=BaseTask, bind=True, name="app.tasks.analytics.backfill")
def backfill(self: BaseTask, first: str, last: str) -> dict[str, Any]:
    """Count each day from ``first`` to ``last`` (ISO 8601), in a run of its own."""
    with self.transaction() as session:
        return asdict(
            analytics.plan_backfill(session, first, last, zone=_zone(), now=clock.utcnow())
        )


def _zone() -> ZoneInfo:
    return ZoneInfo(load_settings().celery_timezone)
