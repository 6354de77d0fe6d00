"""What a worker's events say of a task, and what it does with one that was not recorded."""

from types import SimpleNamespace
from typing import Any

import pytest
from billiard.einfo import ExceptionInfo

from app.outbox import PUBLISHED_AT_HEADER
from app.tasks.attempts import NotRecordedError, RowLockedError
from app.tasks.health import health_check
from app.tasks.outage import Outage
from app.tasks.request import OutboxRequest

PUBLISHED_AT = "2026-07-01T12:00:00+00:00"
TRACE_ID = "0123456789abcdef0123456789abcdef"
OF_THE_OUTBOX = {PUBLISHED_AT_HEADER: PUBLISHED_AT, "trace_id": TRACE_ID}


class Message:
    """As kombu gives one to a worker."""

    def __init__(self, headers: dict[str, str]) -> None:
        self.headers = {"id": "an-id", "task": health_check.name, **headers}
        self.body = b"[[], {}, {}]"
        self.payload = [[], {}, {}]
        self.content_type = "application/json"
        self.content_encoding = "utf-8"
        self.properties: dict[str, Any] = {"correlation_id": "an-id"}
        self.delivery_info = {"routing_key": "email", "priority": 4}
        self.delivery_tag = "a-tag"
        self.acknowledged = False


class Events:
    enabled = True

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, Any]]] = []

    def send(self, type: str, **fields: Any) -> None:
        self.sent.append((type, fields))


def sent(type: str, headers: dict[str, str]) -> dict[str, Any]:
    events = Events()
    request = OutboxRequest(
        Message(headers), app=health_check.app, task=health_check, eventer=events
    )
    request.send_event(type)
    ((sent_type, fields),) = events.sent
    assert sent_type == type
    return fields


def test_the_event_of_a_start_has_the_messages_stamp_queue_and_trace() -> None:
    assert sent("task-started", OF_THE_OUTBOX) == {
        "uuid": "an-id",
        "queue": "email",
        PUBLISHED_AT_HEADER: PUBLISHED_AT,
        "trace_id": TRACE_ID,
    }


@pytest.mark.parametrize(
    ("type", "headers"),
    [("task-started", {}), ("task-succeeded", OF_THE_OUTBOX)],
    ids=["a stock producer's message", "another event"],
)
def test_other_events_stay_as_celery_has_them(type: str, headers: dict[str, str]) -> None:
    assert sent(type, headers) == {"uuid": "an-id"}


@pytest.mark.parametrize(
    ("error", "stops"),
    [
        (NotRecordedError("the server is away"), True),
        (RowLockedError("canceling statement due to lock timeout"), False),
    ],
)
def test_only_a_database_that_is_away_stops_the_worker(
    error: NotRecordedError, stops: bool
) -> None:
    message: Any = Message(OF_THE_OUTBOX)
    message.channel = SimpleNamespace(outage=Outage())
    done = end_by(message, error)
    assert done == ["given back" if stops else "acknowledged"]
    assert message.channel.outage.is_on is stops


def end_by(message: Any, error: Exception) -> list[str]:
    """What becomes of a message whose attempt ended with ``error``."""
    done: list[str] = []
    request: Any = OutboxRequest(
        message,
        app=health_check.app,
        task=health_check,
        eventer=Events(),
        on_ack=lambda *_arguments: done.append("acknowledged"),
        on_reject=lambda *_arguments: done.append("given back"),
    )
    try:
        raise error
    except NotRecordedError:
        request.on_failure(ExceptionInfo())
    return done


def test_a_message_that_came_past_the_outbox_is_given_back_while_its_row_is_locked() -> None:
    """The relay would not publish it again."""
    message: Any = Message({})
    message.channel = SimpleNamespace(outage=Outage())
    assert end_by(message, RowLockedError("canceling statement")) == ["given back"]
    assert not message.channel.outage.is_on
