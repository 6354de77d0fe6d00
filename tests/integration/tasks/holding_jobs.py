"""Jobs that stay inside their transaction: for workers of a test.

``celery -A tests.integration.tasks.holding_jobs worker``. On PostgreSQL the server is busy with
their statement, on SQLite they hold the write lock.
"""

import time
from contextlib import suppress

from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import text
from sqlalchemy.orm import Session

from app.tasks import BaseTask
from scripts.live.jobs import celery_app, have_effect_in, mark_start, starts

__all__ = ["celery_app"]

HOLD_SECONDS = 45
SOFT_LIMIT, HARD_LIMIT = 3, 5
"""Seconds."""


def hold(session: Session) -> None:
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text(f"SELECT pg_sleep({HOLD_SECONDS})"))
    else:
        time.sleep(HOLD_SECONDS)


def hold_on(session: Session) -> None:
    """Go on also after the soft time limit."""
    with suppress(SoftTimeLimitExceeded):
        hold(session)
    time.sleep(HOLD_SECONDS)


# Not shared: other Celery apps of this process have no such limits.
@celery_app.task(
    base=BaseTask,
    bind=True,
    name="holding.limited",
    soft_time_limit=SOFT_LIMIT,
    time_limit=HARD_LIMIT,
    shared=False,
)
def limited(self: BaseTask, job: str, limit: str) -> None:
    """Reach a time limit inside the transaction: the soft one, or the hard one."""
    mark_start(job)
    with self.transaction() as session:
        (hold if limit == "soft" else hold_on)(session)
        have_effect_in(session, job)


@celery_app.task(base=BaseTask, bind=True, name="holding.once", shared=False, retry_base=0.1)
def once(self: BaseTask, job: str) -> None:
    """Hold the transaction in the first attempt; in later ones have the effect at once."""
    mark_start(job)
    first = starts()[job] == 1
    with self.transaction() as session:
        if first:
            hold(session)
        have_effect_in(session, job)


@celery_app.task(base=BaseTask, bind=True, name="holding.idle", shared=False)
def idle(self: BaseTask, job: str, seconds: float) -> None:
    """Do nothing for ``seconds`` inside the transaction, then have the effect."""
    mark_start(job)
    with self.transaction() as session:
        time.sleep(seconds)
        have_effect_in(session, job)
