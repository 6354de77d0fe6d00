import pytest

from app.routing import QUEUES, queue_for, wire_priority


def test_the_wire_turns_urgency_round() -> None:
    """Redis serves 0 first: with urgency itself on the wire, bookings came last."""
    by_urgency = sorted(QUEUES, key=lambda spec: -spec.urgency)
    on_the_wire = sorted(QUEUES, key=lambda spec: wire_priority(spec.urgency))
    assert [spec.name for spec in on_the_wire] == [spec.name for spec in by_urgency]
    assert on_the_wire[0].name == "bookings"
    assert on_the_wire[-1].name == "maintenance"


@pytest.mark.parametrize("urgency", [-1, 10])
def test_an_urgency_is_one_digit(urgency: int) -> None:
    with pytest.raises(ValueError, match="between 0 and 9"):
        wire_priority(urgency)


@pytest.mark.parametrize(
    ("task", "queue"),
    [
        ("app.tasks.bookings.send_due_reminders", "bookings"),
        ("app.tasks.cleanup.delete_expired_sessions", "maintenance"),
        ("app.tasks.health.health_check", "celery"),
        ("app.tasks.unheard_of.task", "celery"),
        ("somebody.elses.bookings.task", "celery"),
        ("celery.ping", "celery"),
    ],
)
def test_a_tasks_module_names_its_queue(task: str, queue: str) -> None:
    assert queue_for(task).name == queue
