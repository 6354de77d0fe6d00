"""Students have forgotten their passwords."""

from __future__ import annotations

from locust import task

from loadtests._users import Person


class ResetPasswords(Person):
    weight = 8
    queues = ("email",)
    sends = "asks for a password reset: one message for email, more urgent than other mails"

    @task
    def forget_password(self) -> None:
        self.act("reset password", lambda acts: acts.forget_password())
