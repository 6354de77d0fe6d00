"""Guards for what is leant on of Celery's event receiver."""

from kombu import Connection

from app.tasks import celery_app
from loadtests._events import Receiver


def test_a_timestamp_stays_what_the_worker_wrote_whatever_its_time_zone() -> None:
    with Connection("memory://") as connection:
        receiver = Receiver(connection, handlers={}, app=celery_app)
        sent = {"type": "task-started", "timestamp": 1_000_000.0, "utcoffset": 11, "clock": 1}
        kind, event = receiver.event_from_message(dict(sent))
    assert (kind, event["timestamp"]) == ("task-started", 1_000_000.0)
