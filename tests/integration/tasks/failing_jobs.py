"""Jobs that fail in every way until a file says that all is well: for workers of a test.

``celery -A tests.integration.tasks.failing_jobs worker``
"""

import os
import signal
from contextlib import suppress
from pathlib import Path
from time import sleep

from celery.exceptions import SoftTimeLimitExceeded

from app.domain.errors import TransientError
from app.tasks import BaseTask
from scripts.live.jobs import celery_app, have_effect, mark_start

__all__ = ["celery_app"]

HEALED = "HEALED_FILE"
"""Environment variable: the file."""


@celery_app.task(
    base=BaseTask, bind=True, name="failing.job", max_retries=1, retry_base=0.1, retry_cap=0.1
)
def job(self: BaseTask, name: str, fault: str) -> None:
    """Have the effect if all is well, else the fault."""
    _fail_until_healed(self, name, fault)


# Only for what gets stuck: a pool may look 5 seconds late after a child that was killed.
@celery_app.task(
    base=BaseTask, bind=True, name="failing.short_job", soft_time_limit=1, time_limit=2
)
def short_job(self: BaseTask, name: str, fault: str) -> None:
    """As ``job``, with time limits that are soon reached."""
    _fail_until_healed(self, name, fault)


def _fail_until_healed(self: BaseTask, name: str, fault: str) -> None:
    mark_start(name)
    if not Path(os.environ[HEALED]).exists():
        _fail(fault)
    have_effect(self, name)


def _fail(fault: str) -> None:
    if fault == "transient":
        raise TransientError("not yet")
    if fault == "permanent":
        raise ValueError("never")
    if fault == "kills its worker":
        os.kill(os.getpid(), signal.SIGKILL)
    while fault == "is stuck":
        with suppress(SoftTimeLimitExceeded):
            sleep(60)
