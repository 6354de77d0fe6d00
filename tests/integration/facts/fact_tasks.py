"""Tasks that show what Celery does: ``celery -A tests.integration.facts.fact_tasks worker``."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from celery import Task
from celery.exceptions import Retry, SoftTimeLimitExceeded

from app.tasks import BaseTask, celery_app


class NotesFailures(BaseTask):
    """Appends the process in which ``on_failure`` is called to the file of the first argument."""

    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        with Path(args[0]).open("a") as notes:
            notes.write(f"{os.getpid()} {type(exc).__name__}\n")
        super().on_failure(exc, task_id, args, kwargs, einfo)


@celery_app.task(base=Task, bind=True, name="facts.show_request")
def show_request(self: Any) -> dict[str, Any]:
    return {"retries": self.request.retries, "stamp": self.request.get("facts_stamp")}


@celery_app.task(base=Task, bind=True, name="facts.retry_without_publishing")
def retry_without_publishing(self: Any) -> None:
    raise Retry("later", when=1)


def be_stuck(notes: str) -> None:
    """Hang in spite of the soft limit, as a task in a C library does."""
    Path(notes).with_suffix(".child").write_text(str(os.getpid()))
    while True:
        with suppress(SoftTimeLimitExceeded):
            time.sleep(60)


@celery_app.task(base=NotesFailures, bind=True, name="facts.get_stuck")
def get_stuck(self: BaseTask, notes: str) -> None:
    be_stuck(notes)


@celery_app.task(base=NotesFailures, bind=True, name="facts.get_stuck_in_a_short", time_limit=1)
def get_stuck_in_a_short(self: BaseTask, notes: str) -> None:
    be_stuck(notes)


@celery_app.task(base=BaseTask, bind=True, name="facts.kill_child")
def kill_child(self: BaseTask) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@celery_app.task(
    base=BaseTask, bind=True, name="facts.outlast_limits", soft_time_limit=1, time_limit=3
)
def outlast_limits(self: BaseTask, notes: str) -> None:
    """Work for 10 seconds, and note a soft limit that strikes, and the end."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            time.sleep(0.1)
        except SoftTimeLimitExceeded:
            note(notes, "soft")
    note(notes, "end")


def note(notes: str, line: str) -> None:
    with Path(notes).open("a") as file:
        file.write(f"{line}\n")
