"""Somebody looks whether all is well, more often than beat."""

from __future__ import annotations

from locust import task

from loadtests._users import Person
from loadtests._work import HEALTH_CHECK


class CheckHealth(Person):
    weight = 2
    queues = ("celery",)
    sends = "asks whether all is well: one message for celery, the default queue"

    @task
    def check(self) -> None:
        self.act("check health", lambda acts: acts.plan(HEALTH_CHECK))
