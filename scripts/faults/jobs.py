"""The jobs of the fault proofs: ``celery -A scripts.faults.jobs worker``.

The real app with its real schedule, the countable jobs of ``scripts.live``, and a beat entry
whose every due instant is a job of its own: an instant that fires twice is counted twice.
"""

from app.tasks import BaseTask
from scripts.faults.figures import TICK
from scripts.live.jobs import have_effect
from scripts.live.queue_jobs import celery_app

__all__ = ["celery_app"]

TICK_SECONDS = 5.0


@celery_app.task(base=BaseTask, bind=True, name="scripts.faults.jobs.tick")
def tick(self: BaseTask) -> None:
    """Have the effect of this due instant."""
    have_effect(self, f"{TICK} {self.due_at.isoformat()}")


celery_app.conf.beat_schedule = {
    **celery_app.conf.beat_schedule,
    TICK: {"task": tick.name, "schedule": TICK_SECONDS},
}
