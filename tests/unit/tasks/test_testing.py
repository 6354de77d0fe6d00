"""The helpers for tests of others: what they see, what they run, how they fail."""

import json
import math
import re
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from celery import states
from celery.exceptions import NotRegistered, Reject
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from app import db, outbox
from app.domain.errors import TransientError
from app.models import OutboxEntry, OutboxState
from app.settings import load_settings
from app.tasks import BaseTask, email
from app.tasks.attempts import AttemptError, UnfinishedWorkError
from app.tasks.testing import (
    FAILED,
    TooManyRunsError,
    UncommittedWorkError,
    assert_enqueued,
    drain,
    without_broker,
)
from scripts.live.ending_jobs import ENDINGS, POOLS
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


class Colour(StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    "arg",
    [(1, 2), [(1,), {"a": (2,)}], {1: "x"}, {None: 1, True: 2}, Colour.RED, 1.5, "ü", None, True],
    ids=repr,
)
def test_arguments_are_compared_as_json_has_them(database: Engine, arg: Any) -> None:
    plan("a", arg, unchecked=True)
    assert_enqueued(database, TASK, "a", arg)
    (found,) = [json.loads(json.dumps(arg))]
    assert_enqueued(database, TASK, "a", found)


@pytest.mark.parametrize(
    ("planned", "asked"),
    [(1, True), (0, False), ([1], [True]), ({"a": 1}, {"a": True}), ("1", 1), ([1, 2], [1])],
)
def test_what_json_tells_apart_is_not_the_same(database: Engine, planned: Any, asked: Any) -> None:
    plan(planned)
    assert_enqueued(database, TASK, asked, times=0)
    assert_enqueued(database, TASK, planned)


@pytest.mark.parametrize("arg", [Decimal("1.5"), datetime(2026, 7, 1, tzinfo=UTC), math.nan, {1}])
def test_arguments_that_enqueue_refuses_are_refused(database: Engine, arg: Any) -> None:
    with pytest.raises(TypeError, match=f"the arguments of {TASK} are not JSON"):
        plan(arg)
    with pytest.raises(TypeError, match=f"the arguments of {TASK} are not JSON"):
        assert_enqueued(database, TASK, arg, times=0)


def test_a_naive_instant_is_refused(database: Engine) -> None:
    with pytest.raises(TypeError, match="is naive"):
        assert_enqueued(database, TASK, at=datetime(2026, 7, 1), times=0)  # noqa: DTZ001


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


def test_work_of_a_task_that_nobody_has_is_postponed_as_in_production(database: Engine) -> None:
    entry_id = plan(task="app.tasks.email.nobody", unchecked=True)
    ran = drain(retries=1)
    assert [(run.state, type(run.result)) for run in ran] == [(states.RETRY, NotRegistered)] * 2
    left = entry(entry_id)
    assert (left.state, left.tries) == (OutboxState.PENDING, 2)
    assert (
        "no worker that took it knows the task app.tasks.email.nobody" in left.errors[-1]["error"]
    )


def test_work_of_a_task_that_nobody_has_is_a_dead_letter_in_the_end(database: Engine) -> None:
    limit = load_settings().unknown_task_retries
    entry_id = plan(task="app.tasks.email.nobody", unchecked=True)
    with pytest.raises(NotRegistered, match=r"app\.tasks\.email\.nobody"):
        drain(retries=limit + 1)
    assert entry(entry_id).state is OutboxState.DEAD


@pytest.mark.parametrize("joined", ["create_savepoint", "control_fully", "rollback_only"])
def test_work_that_joined_an_open_transaction_is_named_instead_of_left_out(
    database: Engine, joined: Any
) -> None:
    """SQLAlchemy's recipe for tests: each session joins a transaction that is rolled back."""
    with database.connect() as connection, connection.begin() as outer:
        with Session(connection, join_transaction_mode=joined) as session:
            outbox.enqueue(session, TASK, 1)
            if joined != "control_fully":  # this one commits the outer transaction
                session.commit()
            with pytest.raises(UncommittedWorkError, match=rf"1 entry, {TASK}, .* still open"):
                drain()
        if outer.is_active:
            outer.rollback()
    assert drain() == []


def test_work_that_is_not_committed_is_named_instead_of_left_out(database: Engine) -> None:
    with db.transaction() as session:
        outbox.enqueue(session, TASK, 1)
        with pytest.raises(UncommittedWorkError, match="Commit it before drain"):
            drain()
        session.rollback()


def test_an_open_transaction_that_planned_nothing_is_no_hindrance(bench: Bench) -> None:
    def body(self: BaseTask) -> str:
        return "done"

    task = bench.task(body)
    plan(task=task.name)
    with db.reading() as session:
        session.scalars(select(OutboxEntry)).all()
        assert [run.result for run in drain()] == ["done"]


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


def ending(bench: Bench, end: str) -> str:
    def body(self: BaseTask) -> Any:
        return ENDINGS[end].body(self)

    return plan(task=bench.task(body, max_retries=1).name)


@pytest.mark.parametrize(
    "end", [name for name, of in ENDINGS.items() if of.pools == POOLS and of.starts == 1]
)
def test_a_drain_ends_a_task_as_a_worker_does(bench: Bench, end: str) -> None:
    entry_id = ending(bench, end)
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        (ran,) = drain(failures=True)
    finally:
        signal.signal(signal.SIGINT, before)
    assert entry(entry_id).state is ENDINGS[end].state
    assert (ran.state in FAILED) == (ENDINGS[end].state is OutboxState.DEAD)


@pytest.mark.parametrize(
    ("end", "error"),
    [
        ("Reject", Reject),
        ("sys.exit", AttemptError),
        ("returns a coroutine", UnfinishedWorkError),
        ("an unreadable error", AttemptError),
    ],
)
def test_a_drain_raises_what_made_a_dead_letter(
    bench: Bench, end: str, error: type[Exception]
) -> None:
    ending(bench, end)
    with pytest.raises(error):
        drain()


def test_work_that_is_requeued_again_and_again_is_bounded(bench: Bench) -> None:
    entry_id = ending(bench, "Reject, requeued")
    ran = drain(retries=20, failures=True)
    assert len(ran) == load_settings().max_deliveries
    assert entry(entry_id).state is OutboxState.DEAD


def test_ctrl_c_in_a_drain_ends_the_test_and_not_the_task(bench: Bench) -> None:
    entry_id = ending(bench, "KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        drain()
    assert entry(entry_id).state is OutboxState.PENDING
