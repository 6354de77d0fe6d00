"""Students book lessons, which are confirmed at once."""

from __future__ import annotations

from locust import task

from loadtests._users import Person


class BookLessons(Person):
    weight = 20
    queues = ("bookings", "email", "notifications")
    sends = "books a lesson: one message for bookings, one for email, one for notifications"

    @task
    def book(self) -> None:
        self.act("book", lambda acts: acts.book())
