"""Which messages no task can be given, and what their dead letters say."""

import json
from typing import Any

import pytest
from kombu.message import Message

from app.outbox import PUBLISHED_AT_HEADER
from app.tasks import messages
from app.tasks.messages import NO_TASK, FaultyMessageError

SECRET = "ann.lee"
HEADERS = {"task": "app.tasks.email.deliver", "id": "some-id", "retries": 2, "eta": None}
BODY = [[1, SECRET], {"x": 2}, {"callbacks": None}]


def a_message(
    body: Any = BODY,
    *,
    raw: str | None = None,
    content_type: str = "application/json",
    headers: dict[str, Any] | None = None,
    **changed: Any,
) -> Message:
    return Message(
        json.dumps(body) if raw is None else raw,
        content_type=content_type,
        content_encoding="utf-8",
        headers={**HEADERS, **changed} if headers is None else headers,
        accept={"application/json"},
    )


FAULTY = {
    "bad JSON": a_message(raw=f'[["{SECRET}"'),
    "no content": a_message(raw=""),
    "an unknown content type": a_message(content_type="application/x-unheard-of"),
    "a content type that is not accepted": a_message(content_type="application/x-python-serialize"),
    "a number": a_message(5),
    "nothing": a_message(None),
    "a text": a_message(SECRET),
    "a text that contains args": a_message(f"args {SECRET}"),
    "two parts": a_message([[SECRET], {}]),
    "four parts": a_message([[SECRET], {}, {}, {}]),
    "an object": a_message({"name": SECRET}),
    "arguments that are no list": a_message([SECRET, {}, {}]),
    "keywords that are no object": a_message([[], [SECRET], {}]),
    "embedded options that are no object": a_message([[], {}, SECRET]),
    "old arguments that are no list": a_message(
        {"task": "t", "id": "i", "args": SECRET}, headers={"other": 1}
    ),
    "no task": a_message(headers={"id": "some-id"}),
    "a task that is no text": a_message(task=["x"]),
    "an id that is missing": a_message(id=None),
    "an id that is too long": a_message(id="x" * 256),
    "an id that no database takes": a_message(id="\ud800"),
    "retries that are no number": a_message(retries="many"),
    "retries that are true": a_message(retries=True),
    "retries below zero": a_message(retries=-1),
    "retries beyond the database's numbers": a_message(retries=2**31),
    "a name to show that fakes a log line": a_message(shadow="x\n2026-01-01 all is well"),
    "a name to show that is none": a_message(shadow=[SECRET]),
    "a header that hides a method of the request": a_message(get=SECRET),
    "nested deeper than a child process decodes": a_message(
        raw="[[" + "[" * 500 + "]" * 500 + "], {}, {}]"
    ),
    "NaN in a list": a_message([[[float("nan")]], {}, None]),
    "Infinity as keyword": a_message([[], {"x": float("-inf")}, None]),
    "time limits below zero": a_message(timelimit=[None, -1]),
    "time limits that never end": a_message(timelimit=[float("inf"), None]),
    "time limits that are not comparable": a_message(timelimit=[float("nan"), None]),
    "time limits that are true": a_message(timelimit=[None, True]),
    "time limits of three": a_message(timelimit=[1, 2, 3]),
    "time limits that are no numbers": a_message(timelimit=["1", None]),
    "an ETA that is none": a_message(eta="next week"),
    "an ETA that is a number": a_message(eta=5),
    "an ETA that no clock shows": a_message(eta="0001-01-01T00:00:00+14:00"),
    "an expiry that is none": a_message(expires="yesterday"),
}

SOUND = {
    "Celery's three parts": a_message(),
    "no embedded options": a_message([[], {}, None]),
    "an ETA and an expiry": a_message(eta="2026-07-01T12:00:00+00:00", expires="2026-07-01T12:00"),
    "time limits": a_message(timelimit=[None, 2.5]),
    "the word NaN": a_message([["NaN", "Infinity"], {}, None]),
    "no retries": a_message(retries=None),
    "protocol 1": a_message({"task": "t", "id": "i", "args": [1]}, headers={"other": 1}),
    "protocol 1 in 2": a_message({"args": [1], "kwargs": {}}),
}


@pytest.mark.parametrize("message", FAULTY.values(), ids=FAULTY)
def test_a_message_with_which_a_worker_would_fail_is_faulty_and_not_quoted(
    message: Message,
) -> None:
    with pytest.raises(FaultyMessageError) as caught:
        messages.check(message)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("message", SOUND.values(), ids=SOUND)
def test_what_celery_sends_is_sound(message: Message) -> None:
    messages.check(message)


@pytest.mark.parametrize("message", FAULTY.values(), ids=FAULTY)
def test_a_faulty_message_has_a_delivery_that_a_row_can_hold(message: Message) -> None:
    delivery = messages.delivery_of(message)
    for name in (delivery.id, delivery.task):
        assert 0 < len(name.encode()) <= messages.LONGEST_NAME
    assert delivery.tries >= 0
    assert json.dumps([delivery.args, delivery.kwargs])


def test_a_readable_message_keeps_its_arguments() -> None:
    delivery = messages.delivery_of(a_message(eta="next week"))
    assert (delivery.id, delivery.task) == ("some-id", "app.tasks.email.deliver")
    assert (delivery.args, delivery.kwargs) == ([1, SECRET], {"x": 2})
    assert (delivery.tries, delivery.from_outbox) == (2, False)


@pytest.mark.parametrize("argument", [float("nan"), float("-inf"), "\ud800", "a\0b"])
def test_what_no_json_column_takes_is_left_out_of_the_dead_letter(argument: object) -> None:
    delivery = messages.delivery_of(a_message([[argument], {}, None]))
    assert (delivery.args, list(delivery.kwargs)) == ([], ["unreadable_body"])


def test_an_unreadable_body_is_told_by_its_size_in_an_argument_that_no_task_takes() -> None:
    delivery = messages.delivery_of(a_message(raw="not json"))
    assert (delivery.args, delivery.kwargs) == (
        [],
        {"unreadable_body": "8 bytes of application/json"},
    )


def test_a_message_without_id_and_task_gets_an_id_of_its_own() -> None:
    first, second = (messages.delivery_of(a_message(5, headers={"other": 1})) for _ in range(2))
    assert first.task == NO_TASK
    assert first.id != second.id


def test_a_message_of_the_outbox_is_known_by_its_header() -> None:
    message = a_message(raw="not json", **{PUBLISHED_AT_HEADER: "2026-07-01T12:00:00+00:00"})
    assert messages.delivery_of(message).from_outbox


def test_a_dead_letter_of_retries_that_are_true_counts_none() -> None:
    # SQL has no comparison of a number with a boolean, so it could not be written.
    delivery = messages.delivery_of(a_message(retries=True))
    assert delivery.tries == 0
    assert not isinstance(delivery.tries, bool)
