"""Copies of what the tables say, for whoever must read it fast."""

from dataclasses import asdict
from typing import Any

from app import clock
from app.adapters.slot_cache import slot_cache_from
from app.services import slot_refresh
from app.settings import load_settings
from app.tasks.base import BaseTask
from app.tasks.celery_app import celery_app


@celery_app.task(base=BaseTask, bind=True, name="app.tasks.cache.update_availability")
def update_availability(self: BaseTask, full: bool = False) -> dict[str, Any]:
    """Bring the cached free slots up to date: of instructors that changed, or of all.

    An entry is replaced only by one that is as new, so this needs no guard.
    """
    with slot_cache_from(load_settings()) as cache:
        return asdict(slot_refresh.refresh(cache, clock=clock.utcnow, full=full))
