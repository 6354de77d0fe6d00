"""What self.retry() takes, and what it refuses at the call."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import states

from app.models import OutboxState
from app.tasks import BaseTask
from app.tasks.retries import LONGEST_WAIT
from tests.fakes import FakeClock
from tests.tracing import deliver, deliver_foreign
from tests.unit.tasks.conftest import Bench, entry


def retried_with(bench: Bench, **given: Any) -> Any:
    def body(self: BaseTask) -> None:
        raise self.retry(**given)

    task = bench.task(body)
    message = bench.enqueue(task)
    outcome = deliver(task, message)
    return outcome, entry(message.id)


@pytest.mark.parametrize(
    "given",
    [
        {"countdown": -5},
        {"eta": datetime(2026, 1, 1, tzinfo=UTC)},
        {"eta": datetime.min.replace(tzinfo=UTC)},
        {"countdown": 0},
    ],
    ids=str,
)
def test_what_is_due_already_is_due_now(
    bench: Bench, now: FakeClock, given: dict[str, Any]
) -> None:
    _, row = retried_with(bench, **given)
    assert (row.state, row.due_at) == (OutboxState.PENDING, now.now)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"countdown": math.nan}, "ValueError: retry of {}: countdown=nan is not a number of seconds"),
    ({"countdown": math.inf}, "ValueError: retry of {}: countdown=inf is not a number of seconds"),
    ({"countdown": 10**12}, "ValueError: retry of {}: countdown=1000000000000 is not"),
    ({"countdown": timedelta(1)}, "TypeError: retry of {}: countdown is a timedelta: give seconds"),
    ({"countdown": "5"}, "TypeError: retry of {}: countdown is a str: give seconds"),
    ({"eta": datetime.max.replace(tzinfo=UTC)}, "ValueError: retry of {}: eta=9999-12-31"),
    ({"eta": datetime(2026, 7, 2)}, "TypeError: retry of {}: eta=2026-07-02T00:00:00 is naive"),  # noqa: DTZ001
    ({"eta": "2026-07-01"}, "TypeError: retry of {}: eta is a str: give a datetime"),
    ({"eta": 60}, "TypeError: retry of {}: eta is a int: give a datetime"),
    (
        {"eta": datetime(2026, 7, 2, tzinfo=UTC), "countdown": 5},
        "TypeError: retry of {}: give countdown or eta, not both",
    ),
    ({"args": "abc"}, "TypeError: retry of {}: args must be a list or tuple"),
    ({"args": {"a": 1}}, "TypeError: retry of {}: args must be a list or tuple"),
    ({"kwargs": [1]}, "TypeError: retry of {}: args must be a list or tuple and kwargs a dict"),
    ({"args": [b""]}, "TypeError: the arguments of {} are not JSON"),
    ({"args": [math.nan]}, "TypeError: the arguments of {} are not JSON"),
    ({"kwargs": {"x": {1, 2}}}, "TypeError: the arguments of {} are not JSON"),
    ({"exc": "boom"}, "TypeError: retry of {}: exc is a str, not an exception"),
]


@pytest.mark.parametrize(("given", "error"), REFUSED, ids=str)
def test_what_no_retry_can_be_given_fails_at_the_call(
    bench: Bench, given: dict[str, Any], error: str
) -> None:
    outcome, row = retried_with(bench, **given)
    assert (outcome.state, row.state) == (states.FAILURE, OutboxState.DEAD)
    assert row.errors[-1]["error"].startswith(error.format(row.task))


@pytest.mark.parametrize(("given", "error"), REFUSED, ids=str)
def test_it_does_so_without_an_entry(bench: Bench, given: dict[str, Any], error: str) -> None:
    def body(self: BaseTask) -> None:
        raise self.retry(**given)

    task = bench.task(body)
    assert deliver_foreign(task, "an-id").state == states.FAILURE
    assert entry("an-id").errors[-1]["error"].startswith(error.format(task.name))


def test_the_longest_wait_is_accepted(bench: Bench, now: FakeClock) -> None:
    _, row = retried_with(bench, countdown=LONGEST_WAIT.total_seconds())
    assert row.due_at == now.now + LONGEST_WAIT
