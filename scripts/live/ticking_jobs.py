"""A beat with something to do every second: ``celery -A scripts.live.ticking_jobs beat``.

The jobs of ``scripts.live.jobs``, and a schedule of one entry whose every run is counted
as an effect of the job ``tick``.
"""

from scripts.live.jobs import celery_app

__all__ = ["celery_app"]

TICK = "tick"
SECONDS = 1.0

celery_app.conf.beat_schedule = {
    TICK: {"task": "scripts.live.jobs.effect", "schedule": SECONDS, "args": (TICK,)}
}
