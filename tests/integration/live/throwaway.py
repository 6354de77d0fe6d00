"""The smallest Celery app: what a deployment starts while its own tests run."""

import os
import time

from celery import Celery
from celery.utils.log import get_task_logger

log = get_task_logger(__name__)
app = Celery("throwaway", broker=os.environ["REDIS_URL"])
app.conf.update(
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
    beat_schedule={"often": {"task": "say", "schedule": 1.0, "args": ["from beat"]}},
)


@app.task(name="say")
def say(what: str) -> None:
    """Leave a trace in the worker's log."""
    log.info("said %s", what)


@app.task(name="dawdle")
def dawdle(seconds: float) -> None:
    """Take so long."""
    log.info("dawdling in %s", os.getpid())
    time.sleep(seconds)
