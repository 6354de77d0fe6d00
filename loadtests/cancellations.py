"""Students cancel lessons."""

from __future__ import annotations

from locust import task

from loadtests._users import Person


class CancelLessons(Person):
    weight = 8
    queues = ("bookings", "email", "notifications")
    sends = "cancels a lesson: one message for bookings, one for email, one for notifications"

    @task
    def cancel(self) -> None:
        self.act("cancel", lambda acts: acts.cancel())
