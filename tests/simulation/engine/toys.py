"""Small Celery apps to put on virtual time."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded
from celery.schedules import crontab

START = datetime(2026, 7, 15, 4, tzinfo=UTC)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)


def an_app(*, visibility_timeout: float = 3600.0, **conf: Any) -> Celery:
    """Late acknowledgement and ten priorities; durations in seconds."""
    app = Celery("toy", broker="redis://nowhere.invalid:1/0", set_as_current=False)
    app.conf.update(
        task_ignore_result=True,
        task_acks_late=True,
        worker_prefetch_multiplier=1,
        timezone="US/Eastern",
        broker_transport_options={
            "visibility_timeout": visibility_timeout,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
            "priority_steps": list(range(10)),
            "queue_order_strategy": "round_robin",
        },
        **conf,
    )
    return app


class Toy:
    """An app with a task of each kind, and what they did."""

    def __init__(self, **conf: Any) -> None:
        self.app = an_app(**conf)
        self.ran: list[tuple[str, datetime]] = []
        self._make_tasks()

    def _note(self, what: str) -> None:
        self.ran.append((what, datetime.now(UTC)))

    def _make_tasks(self) -> None:
        task = partial(self.app.task, shared=False)

        @task(name="toy.note")
        def note(what: str) -> None:
            self._note(what)

        @task(name="toy.work")
        def work(what: str, seconds: float) -> None:
            time.sleep(seconds)
            self._note(what)

        @task(name="toy.flaky", bind=True, max_retries=3)
        def flaky(self_: Any, what: str, failures: int, countdown: float) -> None:
            if self_.request.retries < failures:
                raise self_.retry(countdown=countdown)
            self._note(what)

        @task(name="toy.jittered", autoretry_for=(OSError,), retry_backoff=True, max_retries=4)
        def jittered(what: str) -> None:
            self._note(what)
            raise OSError("always")

        @task(name="toy.limited", soft_time_limit=10, time_limit=20)
        def limited(what: str, *, stubborn: bool) -> None:
            try:
                time.sleep(60)
            except SoftTimeLimitExceeded:
                self._note(f"{what} interrupted")
                if stubborn:
                    time.sleep(60)

    def __getattr__(self, name: str) -> Any:
        return self.app.tasks[f"toy.{name}"]

    @property
    def names(self) -> list[str]:
        return [what for what, _ in self.ran]

    def at(self, what: str) -> list[timedelta]:
        """When ``what`` ran, as times since the start."""
        return [instant - START for each, instant in self.ran if each == what]


def every_minute(task: str, *args: Any) -> dict[str, Any]:
    return {"task": task, "schedule": crontab(), "args": args}
