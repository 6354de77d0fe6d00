"""The helpers for tests of others: what they see, what they run, how they fail."""

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import states
from sqlalchemy import Engine

from app import db, outbox
from app.domain.errors import TransientError
from app.models import OutboxState
from app.tasks import BaseTask, email
from app.tasks.testing import TooManyRunsError, assert_enqueued, drain, without_broker
from tests.builders import a_service, a_student
from tests.fakes import FakeBroker, FakeClock
from tests.mailers import FakeMailer
from tests.unit.tasks.conftest import Bench, entry

TASK = "app.tasks.email.send_booking_confirmation"
HOUR = timedelta(hours=1)
PAGE = Path(__file__).parents[3] / "docs" / "testing.md"


@pytest.fixture(autouse=True)
def _unpublished(broker: FakeBroker) -> Iterator[None]:
    with without_broker():
        yield


def plan(*args: Any, task: str = TASK, **options: Any) -> str:
    with db.transaction() as session:
        return outbox.enqueue(session, task, *args, **options)


def test_what_is_planned_is_found_by_task_arguments_time_and_key(
    database: Engine, now: FakeClock
) -> None:
    plan(1, at=now.now + HOUR, key="one")
    plan(2)
    assert_enqueued(database, TASK, times=2)
    assert_enqueued(database, email.send_booking_confirmation, 1, at=now.now + HOUR, key="one")
    assert_enqueued(database, TASK, 3, times=0)


def test_a_session_sees_what_it_has_not_committed(database: Engine) -> None:
    with db.transaction() as session:
        outbox.enqueue(session, TASK, 1)
        assert_enqueued(session, TASK, 1)


def test_what_is_done_or_cancelled_is_not_planned(database: Engine) -> None:
    plan(1, key="one")
    with db.transaction() as session:
        outbox.cancel(session, key="one")
    assert_enqueued(database, TASK, times=0)


@pytest.mark.parametrize(
    "wrong",
    [{"args": (2,)}, {"times": 2}, {"times": 0}, {"key": "two"}, {"at": "later"}, {"task": "x.y"}],
    ids=str,
)
def test_a_failure_says_what_was_wanted_and_what_there_is(
    database: Engine, now: FakeClock, wrong: dict[str, Any]
) -> None:
    plan(1, key="one")
    wanted: dict[str, Any] = {"task": TASK, "args": (1,), **wrong}
    if "at" in wanted:
        wanted["at"] = now.now + HOUR
    with pytest.raises(AssertionError) as failed:
        assert_enqueued(database, wanted.pop("task"), *wanted.pop("args"), **wanted)
    said = str(failed.value)
    assert f"times, not {wrong.get('times', 1)}; pending in the outbox:" in said
    assert f"\n  {TASK}(1), due at 2026-07-01 12:00:00 UTC, key 'one'" in said


def test_an_empty_outbox_is_told_as_such(database: Engine) -> None:
    with pytest.raises(AssertionError, match=r"is pending 0 times, not 1; .*outbox: nothing"):
        assert_enqueued(database, TASK)


def test_due_work_runs_once_with_its_arguments_and_its_guard(bench: Bench) -> None:
    def body(self: BaseTask, n: int) -> int:
        with self.transaction():
            return n + 1

    task = bench.task(body)
    entry_id = plan(1, task=task.name)
    (ran,) = drain()
    assert (ran.id, ran.task, ran.args) == (entry_id, task.name, (1,))
    assert (ran.state, ran.result) == (states.SUCCESS, 2)
    assert entry(entry_id).state is OutboxState.DONE
    assert drain() == []


def test_what_a_run_plans_runs_too_and_the_most_urgent_first(bench: Bench) -> None:
    def last(self: BaseTask) -> None:
        """Nothing."""

    def first(self: BaseTask) -> None:
        with self.transaction() as session:
            outbox.enqueue(session, slow.name, urgency=1)
            outbox.enqueue(session, urgent.name, urgency=9)

    slow, urgent, starter = bench.task(last), bench.task(last), bench.task(first)
    plan(task=starter.name)
    assert [ran.task for ran in drain()] == [starter.name, urgent.name, slow.name]


def test_work_for_later_runs_when_its_time_has_come(bench: Bench, now: FakeClock) -> None:
    def body(self: BaseTask) -> str:
        return self.due_at.isoformat()

    due = now.now + HOUR
    plan(task=bench.task(body).name, at=due)
    assert drain() == []
    now.advance(hours=2)
    assert [ran.result for ran in drain()] == [due.isoformat()]


@pytest.mark.parametrize(("retries", "runs"), [(0, 1), (1, 2), (2, 3), (3, 3)])
def test_a_retry_runs_at_once_up_to_a_bound(bench: Bench, retries: int, runs: int) -> None:
    def body(self: BaseTask) -> str:
        if self.request.retries < 2:
            raise TransientError("not yet")
        return "at last"

    entry_id = plan(task=bench.task(body).name)
    ran = drain(retries=retries)
    assert [one.state for one in ran] == ["RETRY", "RETRY", "SUCCESS"][:runs]
    assert entry(entry_id).state is (OutboxState.DONE if runs == 3 else OutboxState.PENDING)


def a_failing_task(bench: Bench) -> Any:
    def body(self: BaseTask) -> None:
        raise ValueError("never")

    return bench.task(body)


def test_a_task_that_fails_fails_the_test(bench: Bench) -> None:
    entry_id = plan(task=a_failing_task(bench).name)
    with pytest.raises(ValueError, match="never"):
        drain()
    assert entry(entry_id).state is OutboxState.DEAD


def test_a_failure_that_is_wanted_is_returned(bench: Bench) -> None:
    plan(task=a_failing_task(bench).name)
    (ran,) = drain(failures=True)
    assert (ran.state, str(ran.result)) == (states.FAILURE, "never")


def test_work_without_an_end_is_ended(bench: Bench) -> None:
    def body(self: BaseTask) -> None:
        with self.transaction() as session:
            outbox.enqueue(session, self.name)

    task = bench.task(body)
    plan(task=task.name)
    with pytest.raises(TooManyRunsError, match=rf"{task.name} would be run number 11"):
        drain(most=10)


def test_work_of_a_task_that_nobody_has_is_an_error_that_names_it(database: Engine) -> None:
    plan(task="app.tasks.email.nobody", unchecked=True)
    with pytest.raises(KeyError, match=r"app\.tasks\.email\.nobody"):
        drain()


def test_without_a_broker_a_commit_publishes_nothing(broker: FakeBroker) -> None:
    plan(1)
    assert broker.pushed == []


def test_the_broker_is_back_afterwards(broker: FakeBroker) -> None:
    outbox.attach(broker)
    with without_broker():
        plan(1)
    plan(2)
    assert [list(message.args) for message in broker.pushed] == [[2]]


def test_the_pages_example_holds(
    database: Engine, now: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(email, "mailer_from", lambda settings: FakeMailer())
    example, *_ = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(example, str(PAGE), "exec"), names)  # noqa: S102
    (test,) = [value for name, value in names.items() if name.startswith("test_")]
    with db.transaction() as session:
        student, service = a_student(session), a_service(session)
    test(student.id, service.id)
