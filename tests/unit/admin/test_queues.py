"""What an operator sees of the queues, and pauses."""

from sqlalchemy import Engine

from app.routing import QUEUES
from tests.fakes import FakeClock
from tests.unit.admin.conftest import Admin, planned


def test_the_queues_are_listed_with_what_is_due_and_what_is_paused(
    admin: Admin, database: Engine, now: FakeClock
) -> None:
    planned()
    admin("queues", "pause", "email")
    now.advance(minutes=5)
    answer = admin("queues", "list")
    assert answer.lines[0] == f"{len(QUEUES)} queues, 1 paused"
    (row,) = (line.split() for line in answer.lines if line.startswith("email"))
    assert row == ["email", "5", "1", "paused", "for", "5m"]
    listed = {row["queue"]: row for row in admin("queues", "list", "--json").json}
    assert next(iter(listed)) == "bookings"
    assert listed["email"]["paused_at"] == "2026-07-01T12:00:00+00:00"
    assert (listed["email"]["due"], listed["cache"]["paused_at"]) == (1, None)


def test_pausing_and_resuming_say_what_was_changed(
    admin: Admin, database: Engine, now: FakeClock
) -> None:
    assert admin("queues", "pause", "email", "cache").lines[:2] == [
        "email is paused",
        "cache is paused",
    ]
    assert admin("queues", "pause", "email").lines == ["email was paused already"]
    assert admin("queues", "resume", "email", "--json").json == {"resumed": ["email"]}
    assert admin("queues", "resume", "email").lines == ["email was not paused"]


def test_an_unknown_queue_is_one_line_with_the_known_ones(
    admin: Admin, database: Engine, now: FakeClock
) -> None:
    for action in ("pause", "resume"):
        answer = admin("queues", action, "emial")
        assert answer.is_one_line_of_refusal
        assert all(spec.name in answer.err for spec in QUEUES)
