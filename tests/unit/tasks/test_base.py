import sqlite3
from datetime import timedelta
from typing import Any

import pytest
from celery import states
from celery.exceptions import Ignore, MaxRetriesExceededError, Reject, Retry
from psycopg.errors import LockNotAvailable
from sqlalchemy import Engine, event
from sqlalchemy.exc import OperationalError

from app import db, outbox
from app.domain.errors import PermanentError, TransientError
from app.models import OutboxEntry, OutboxState
from app.outbox import guard
from app.outbox.guard import Delivery
from app.outbox.publish import publish_unpublished
from app.settings import load_settings
from app.tasks import BaseTask
from app.tasks.attempts import How, NotRecordedError, RowLockedError
from app.tasks.base import SKIPPED
from tests.fakes import FakeClock
from tests.tracing import deliver, deliver_foreign
from tests.unit.tasks.conftest import Bench, add_mark, entry, marks


def leave_a_mark(self: BaseTask) -> str:
    with self.transaction() as session:
        add_mark(session)
    return "done"


def test_a_delivery_has_its_effect_and_its_entry_is_done(bench: Bench) -> None:
    task = bench.task(leave_a_mark)
    message = bench.enqueue(task)
    outcome = deliver(task, message)
    assert (outcome.state, outcome.result, marks()) == (states.SUCCESS, "done", 1)
    assert entry(message.id).state is OutboxState.DONE


def test_a_second_delivery_is_skipped(bench: Bench) -> None:
    task = bench.task(leave_a_mark)
    message = bench.enqueue(task)
    deliver(task, message)
    outcome = deliver(task, message)
    assert (outcome.state, outcome.result["status"], marks()) == (states.SUCCESS, "skipped", 1)


def test_a_guard_inside_the_readmes_try_skips_as_well(bench: Bench) -> None:
    def body(self: BaseTask) -> None:
        try:
            with self.transaction() as session:
                add_mark(session)
        except Exception as exc:
            raise self.retry(exc=exc, countdown=60) from exc

    task = bench.task(body)
    message = bench.enqueue(task)
    outcomes = [deliver(task, message).state for _ in range(3)]
    assert (outcomes, marks()) == ([states.SUCCESS] * 3, 1)
    assert entry(message.id).tries == 0


def test_a_body_without_a_transaction_is_done_at_its_end(bench: Bench) -> None:
    def body(self: BaseTask) -> str:
        return "looked around"

    task = bench.task(body)
    message = bench.enqueue(task)
    assert deliver(task, message).result == "looked around"
    assert entry(message.id).state is OutboxState.DONE


def test_a_done_body_without_a_transaction_does_not_run_again(bench: Bench) -> None:
    runs = []

    def body(self: BaseTask) -> None:
        runs.append(1)

    task = bench.task(body)
    message = bench.enqueue(task)
    outcomes = [deliver(task, message) for _ in range(2)]
    assert [outcome.state for outcome in outcomes] == [states.SUCCESS] * 2
    assert runs == [1]


def test_cancelled_work_does_not_run(bench: Bench) -> None:
    runs = []

    def body(self: BaseTask) -> None:
        runs.append(1)

    task = bench.task(body)
    message = bench.enqueue(task)
    with db.transaction() as session:
        guard.cancel(session, message.id, now=bench.broker.clock.now)
    assert deliver(task, message).result["status"] == "skipped"
    assert runs == []


def test_the_readmes_retry_is_written_into_the_entry(bench: Bench, now: FakeClock) -> None:
    def body(self: BaseTask) -> None:
        try:
            raise KeyError("x")
        except Exception as exc:
            raise self.retry(exc=exc, countdown=60 * (2**self.request.retries)) from exc

    task = bench.task(body, max_retries=3)
    message = bench.enqueue(task)
    outcome = deliver(task, message)
    row = entry(message.id)
    assert outcome.state == states.RETRY
    assert (row.state, row.tries, row.published_at) == (OutboxState.PENDING, 1, None)
    assert row.due_at == now.now + timedelta(seconds=60)
    assert len(bench.broker.pushed) == 1, "the pump publishes the retry, when it is due"


def test_a_retry_asked_for_inside_the_transaction_rolls_it_back(bench: Bench) -> None:
    def body(self: BaseTask) -> None:
        with self.transaction() as session:
            add_mark(session)
            raise self.retry(countdown=1)

    task = bench.task(body)
    message = bench.enqueue(task)
    assert deliver(task, message).state == states.RETRY
    assert (entry(message.id).tries, marks()) == (1, 0)


@pytest.mark.parametrize(
    "error",
    [
        TransientError("later"),
        ConnectionResetError("gone"),
        TimeoutError("slow"),
        OperationalError("UPDATE", {}, Exception("database is locked")),
    ],
)
def test_a_declared_transient_error_is_retried_by_itself(
    bench: Bench, now: FakeClock, error: Exception
) -> None:
    def body(self: BaseTask) -> None:
        raise error

    task = bench.task(body)
    message = bench.enqueue(task)
    assert deliver(task, message).state == states.RETRY
    wait = (entry(message.id).due_at - now.now).total_seconds()
    assert BaseTask.retry_base / 2 <= wait <= BaseTask.retry_base


@pytest.mark.parametrize("error", [PermanentError("never"), ValueError("x"), AssertionError("y")])
def test_any_other_error_is_a_dead_letter_at_once(bench: Bench, error: Exception) -> None:
    def body(self: BaseTask) -> None:
        raise error

    task = bench.task(body)
    message = bench.enqueue(task)
    assert deliver(task, message).state == states.FAILURE
    row = entry(message.id)
    assert row.state is OutboxState.DEAD
    assert type(error).__name__ in row.errors[-1]["error"]
    assert "Traceback" in row.errors[-1]["traceback"]


def test_a_failed_assertion_is_not_retried_even_when_asked(bench: Bench) -> None:
    def body(self: BaseTask) -> None:
        try:
            raise AssertionError("never true")
        except Exception as exc:
            raise self.retry(exc=exc) from exc

    task = bench.task(body)
    message = bench.enqueue(task)
    assert deliver(task, message).state == states.FAILURE
    assert entry(message.id).state is OutboxState.DEAD


def run_until_dead(bench: Bench, task: Any, limit: int = 20) -> int:
    """Deliver, publish what was put back, deliver again; returns how often the body ran."""
    message = bench.enqueue(task)
    for runs in range(1, limit):
        deliver(task, message)
        row = entry(message.id)
        if row.state is OutboxState.DEAD:
            return runs
        message = type(message)(**{**vars(message), "tries": row.tries})
    raise AssertionError("it never died")


def test_one_try_too_many_is_a_dead_letter(bench: Bench) -> None:
    def body(self: BaseTask) -> None:
        raise TransientError("still not")

    assert run_until_dead(bench, bench.task(body, max_retries=3)) == 4


def test_a_retry_without_an_error_ends_in_its_own(bench: Bench) -> None:
    def body(self: BaseTask) -> None:
        raise self.retry(countdown=1)

    task = bench.task(body, max_retries=0)
    outcome = deliver(task, bench.enqueue(task))
    assert isinstance(outcome.result, MaxRetriesExceededError)


def test_the_callers_limit_overrides_the_tasks(bench: Bench) -> None:
    def body(self: BaseTask) -> None:
        raise self.retry(exc=KeyError("x"), countdown=1, max_retries=1)

    assert run_until_dead(bench, bench.task(body, max_retries=5)) == 2


def test_it_does_so_for_an_error_that_would_be_retried_anyway(bench: Bench) -> None:
    def body(self: BaseTask) -> None:
        try:
            raise TransientError("x")
        except TransientError as error:
            raise self.retry(exc=error, countdown=1, max_retries=1) from error

    assert run_until_dead(bench, bench.task(body, max_retries=5)) == 2


def test_it_does_so_for_work_that_did_not_come_from_the_outbox(bench: Bench) -> None:
    def body(self: BaseTask) -> None:
        try:
            raise TransientError("x")
        except TransientError as error:
            raise self.retry(exc=error, countdown=1, max_retries=1) from error

    task = bench.task(body, max_retries=5)
    assert deliver_foreign(task, "an-id", retries=1).state == states.FAILURE


def test_a_retry_may_change_the_arguments(bench: Bench) -> None:
    def body(self: BaseTask, n: int) -> None:
        raise self.retry(args=(n + 1,), countdown=1)

    task = bench.task(body)
    message = bench.enqueue(task, 1)
    deliver(task, message)
    assert entry(message.id).args == [2]


def test_a_message_that_is_redelivered_too_often_dies_before_its_body(bench: Bench) -> None:
    def body(self: BaseTask) -> None:
        raise KeyboardInterrupt  # as if the process had been killed

    task = bench.task(body)
    message = bench.enqueue(task)
    for _ in range(load_settings().max_deliveries - 1):
        with pytest.raises(KeyboardInterrupt):
            deliver(task, message, redelivered=True)
    assert deliver(task, message, redelivered=True).result["status"] == "dead"
    assert entry(message.id).state is OutboxState.DEAD


def test_a_second_transaction_in_one_run_is_refused(bench: Bench) -> None:
    def body(self: BaseTask) -> None:
        for _ in range(2):
            with self.transaction() as session:
                add_mark(session)

    task = bench.task(body)
    outcome = deliver(task, bench.enqueue(task))
    assert "twice" in str(outcome.result)


def test_a_stock_producers_message_has_its_effect_once(bench: Bench) -> None:
    task = bench.task(leave_a_mark)
    states_seen = [deliver_foreign(task, "some-id", redelivered=n > 0).state for n in range(3)]
    assert (states_seen, marks()) == ([states.SUCCESS] * 3, 1)


def test_a_redelivered_stock_message_without_a_transaction_is_not_sent_once_more(
    bench: Bench,
) -> None:
    def body(self: BaseTask) -> str:
        return "looked around"

    task = bench.task(body)
    deliver_foreign(task, "some-id", redelivered=True)
    assert entry("some-id").state is OutboxState.DONE


def test_a_stock_producers_failure_is_a_dead_letter_too(bench: Bench) -> None:
    def body(self: BaseTask, n: int) -> None:
        raise ValueError("no")

    task = bench.task(body)
    deliver_foreign(task, "some-id", 7)
    assert (entry("some-id").state, entry("some-id").args) == (OutboxState.DEAD, [7])


def test_a_failure_after_the_effect_leaves_it_done(bench: Bench) -> None:
    def body(self: BaseTask) -> None:
        leave_a_mark(self)
        raise ValueError("too late to matter")

    task = bench.task(body)
    message = bench.enqueue(task)
    deliver(task, message)
    deliver(task, message)
    assert (entry(message.id).state, marks()) == (OutboxState.DONE, 1)


def test_a_direct_call_needs_no_entry(bench: Bench) -> None:
    task = bench.task(leave_a_mark)
    assert task() == "done"
    assert marks() == 1


def test_work_that_goes_on_is_enqueued_with_the_effect(bench: Bench) -> None:
    def body(self: BaseTask) -> None:
        with self.transaction() as session:
            add_mark(session)
            raise TransientError("rolled back")

    task = bench.task(body)
    deliver(task, bench.enqueue(task))
    assert (marks(), len(bench.broker.pushed)) == (0, 1)


def test_a_body_that_ignores_its_message_is_done(bench: Bench) -> None:
    def body(self: BaseTask) -> None:
        raise Ignore

    task = bench.task(body)
    message = bench.enqueue(task)
    assert deliver(task, message).state == states.IGNORED
    assert entry(message.id).state is OutboxState.DONE


def test_a_retry_that_is_not_thrown_is_planned_all_the_same(bench: Bench) -> None:
    def body(self: BaseTask) -> str:
        self.retry(countdown=5, throw=False)
        return "went on"

    task = bench.task(body)
    message = bench.enqueue(task)
    assert deliver(task, message).result == "went on"
    row = entry(message.id)
    assert (row.state, row.tries, row.published_at) == (OutboxState.PENDING, 1, None)


def test_a_stock_message_that_was_redelivered_and_retried_is_done_at_its_end(bench: Bench) -> None:
    def body(self: BaseTask) -> str:
        return "looked around"

    task = bench.task(body)
    with db.transaction() as session:
        adopted = Delivery("some-id", task.name, from_outbox=False)
        guard.count_redelivery(session, adopted, now=bench.broker.clock.now)
    deliver_foreign(task, "some-id", retries=1)
    assert entry("some-id").state is OutboxState.DONE


class Outage:
    """Makes one of the guard's functions fail, as a database that is away for a moment does."""

    error: Exception = sqlite3.OperationalError("database is locked")

    def __init__(self, monkeypatch: pytest.MonkeyPatch, function: str) -> None:
        def away(*_args: object, **_options: object) -> None:
            raise OperationalError("UPDATE", {}, self.error)

        self._patch = monkeypatch.context()
        self._patch.__enter__().setattr(guard, function, away)

    def end(self) -> None:
        self._patch.__exit__(None, None, None)


@pytest.mark.parametrize("function", ["is_pending", "put_back", "close", "count_redelivery"])
def test_an_outage_while_records_are_written_is_no_failure_of_the_task(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    def body(self: BaseTask) -> None:
        if function == "put_back":
            raise TransientError("later")

    task = bench.task(body)
    message = bench.enqueue(task)
    outage = Outage(monkeypatch, function)
    outcome = deliver(task, message, redelivered=True)
    outage.end()
    row = entry(message.id)
    assert outcome.state == states.IGNORED
    assert (row.state, row.errors) == (OutboxState.PENDING, [])


def test_a_locked_row_is_not_an_outage(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def body(self: BaseTask) -> None:
        """Runs to its end."""

    monkeypatch.setattr(
        Outage, "error", LockNotAvailable("canceling statement due to lock timeout")
    )
    task = bench.task(body)
    message = bench.enqueue(task)
    outage = Outage(monkeypatch, "close")
    outcome = deliver(task, message)
    outage.end()
    assert isinstance(outcome.result, RowLockedError)


def test_an_outage_is_no_failure_either_where_a_task_lists_its_own_errors(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def body(self: BaseTask) -> None:
        """Runs to its end."""

    task = bench.task(body, transient_errors=(TransientError,))
    message = bench.enqueue(task)
    outage = Outage(monkeypatch, "close")
    outcome = deliver(task, message)
    outage.end()
    assert isinstance(outcome.result, NotRecordedError)
    assert (entry(message.id).state, entry(message.id).errors) == (OutboxState.PENDING, [])


def test_an_outage_does_not_count_as_a_retry_of_a_stock_producers_message(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = bench.task(leave_a_mark)
    outage = Outage(monkeypatch, "count_redelivery")
    outcome = deliver_foreign(task, "some-id", redelivered=True)
    outage.end()
    assert isinstance(outcome.result, NotRecordedError)


@pytest.mark.parametrize("reaction", ["none", "self.retry", "Retry"])
def test_a_body_that_cannot_connect_to_the_database_has_not_failed(
    bench: Bench, database: Engine, reaction: str
) -> None:
    def body(self: BaseTask) -> None:
        db.use(db.create_database_engine("sqlite:////nowhere/there.db"))
        try:
            with self.transaction() as session:
                add_mark(session)
        except Exception as exc:
            if reaction == "self.retry":
                raise self.retry(exc=exc, countdown=60) from exc
            if reaction == "Retry":
                raise Retry(exc=exc, when=60) from exc
            raise
        finally:
            db.use(database)

    task = bench.task(body)
    message = bench.enqueue(task)
    outcome = deliver(task, message)
    row = entry(message.id)
    assert isinstance(outcome.result, NotRecordedError)
    assert (row.state, row.tries, row.errors) == (OutboxState.PENDING, 0, [])
    assert "unable to open database file" in str(outcome.result)


def test_a_failure_that_cannot_be_recorded_reaches_the_worker_as_an_outage(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the pool's process is given decides whether the message is acknowledged."""

    def body(self: BaseTask) -> None:
        raise PermanentError("never valid")

    task = bench.task(body)
    given: list[Any] = []
    on_failure = task.on_failure

    def noting(*args: Any) -> None:
        on_failure(*args)
        given.append(args[-1].exception)

    monkeypatch.setattr(task, "on_failure", noting)
    outage = Outage(monkeypatch, "bury")
    deliver(task, bench.enqueue(task))
    outage.end()
    (error,) = given
    assert isinstance(error, NotRecordedError)


def test_a_refusal_that_cannot_be_recorded_is_an_outage_too(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def body(self: BaseTask) -> None:
        raise Reject("no", requeue=False)

    task = bench.task(body)
    message = bench.enqueue(task)
    outage = Outage(monkeypatch, "bury")
    outcome = deliver(task, message)
    outage.end()
    assert isinstance(outcome.result, NotRecordedError)


def test_many_retries_do_not_count_as_lost_workers(bench: Bench) -> None:
    def body(self: BaseTask) -> None:
        raise AssertionError("never runs here")

    task = bench.task(body, max_retries=250)
    message = bench.enqueue(task)
    with db.transaction() as session:
        for tries in range(20):
            delivery = Delivery(message.id, task.name, tries=tries)
            now = bench.broker.clock.now
            guard.put_back(session, delivery, due_at=now, error="later", now=now)
    task.record_end(How.LOST, Delivery(message.id, task.name, tries=20), "killed")
    assert (entry(message.id).state, entry(message.id).deliveries) == (OutboxState.PENDING, 1)


def test_a_worker_lost_again_and_again_makes_a_dead_letter(bench: Bench) -> None:
    def body(self: BaseTask) -> None:
        raise AssertionError("never runs here")

    task = bench.task(body)
    message = bench.enqueue(task)
    for tries in range(load_settings().max_deliveries):
        assert entry(message.id).state is OutboxState.PENDING
        task.record_end(How.LOST, Delivery(message.id, task.name, tries=tries), "killed")
    assert entry(message.id).state is OutboxState.DEAD


def test_a_redelivered_message_without_an_entry_does_not_run_again_after_its_dead_letter(
    bench: Bench,
) -> None:
    """The worker ended between the dead letter and the acknowledgement."""
    started = []

    def body(self: BaseTask) -> None:
        started.append(self.request.id)

    task = bench.task(body)
    task.record_end(How.HARD_LIMIT, Delivery("some-id", task.name, from_outbox=False), "too long")
    assert deliver_foreign(task, "some-id", redelivered=True).result == SKIPPED
    assert started == []


def test_a_run_stands_for_its_beat_entrys_due_instant_in_every_retry_and_resend(
    bench: Bench, now: FakeClock
) -> None:
    seen = []

    def body(self: BaseTask) -> None:
        seen.append(self.due_at)
        raise TransientError("later")

    task = bench.task(body)
    two_in_the_night = now.now - timedelta(hours=10)
    with db.transaction() as session:
        outbox.enqueue(session, task.name, due_instant=two_in_the_night)
    deliver(task, bench.broker.pushed[-1])
    now.advance(hours=1)
    bench.broker.lose_everything()
    publish_unpublished(db.engine(), bench.broker, OutboxEntry.pending())
    deliver(task, bench.broker.pushed[-1])
    assert len(bench.broker.pushed) == 2
    assert seen == [two_in_the_night] * 2


@pytest.mark.parametrize("wait", [timedelta(0), timedelta(days=2)])
def test_a_run_that_no_beat_planned_stands_for_the_instant_it_was_first_due(
    bench: Bench, now: FakeClock, wait: timedelta
) -> None:
    seen = []

    def body(self: BaseTask) -> None:
        seen.append(self.due_at)

    task = bench.task(body)
    first_due = now.now + wait
    with db.transaction() as session:
        outbox.enqueue(session, task.name, at=first_due)
    now.advance(days=3)
    publish_unpublished(db.engine(), bench.broker, OutboxEntry.pending())
    deliver(task, bench.broker.pushed[-1])
    assert seen == [first_due]


def test_a_stock_producers_message_stands_for_now(bench: Bench, now: FakeClock) -> None:
    def body(self: BaseTask) -> str:
        return self.due_at.isoformat()

    task = bench.task(body)
    assert deliver_foreign(task, "some-id").result == now.now.isoformat()
    assert task() == now.now.isoformat()


def test_a_stock_producers_first_delivery_without_a_guard_asks_the_database_nothing(
    bench: Bench, database: Engine
) -> None:
    def body(self: BaseTask) -> str:
        return "looked around"

    asked: list[object] = []

    def note(*statement: object) -> None:
        asked.append(statement[2])

    task = bench.task(body)
    event.listen(database, "before_cursor_execute", note)
    outcome = deliver_foreign(task, "some-id")
    event.remove(database, "before_cursor_execute", note)
    assert (outcome.result, asked) == ("looked around", [])


def test_a_stale_delivery_that_fails_does_not_end_the_next_try(bench: Bench) -> None:
    def body(self: BaseTask) -> None:
        raise ValueError("no")

    task = bench.task(body)
    message = bench.enqueue(task)
    with db.transaction() as session:
        now = bench.broker.clock.now
        first = Delivery(message.id, task.name)
        guard.put_back(session, first, due_at=now, error="later", now=now)
    deliver(task, message)
    assert entry(message.id).state is OutboxState.PENDING


def test_a_failing_delivery_whose_entry_was_purged_makes_no_new_one(bench: Bench) -> None:
    def body(self: BaseTask) -> None:
        with db.transaction() as session:
            session.delete(session.get(OutboxEntry, str(self.request.id)))
        raise ValueError("no")

    task = bench.task(body)
    message = bench.enqueue(task)
    deliver(task, message)
    with db.reading() as session:
        assert session.get(OutboxEntry, message.id) is None
