"""Every way in which a body ends: what becomes of its entry, and what its pool is given."""

import gc
import pickle
import signal
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple
from unittest.mock import MagicMock

import pytest
from billiard.exceptions import WorkerLostError
from celery import states
from celery.exceptions import Ignore, Reject, Retry, SoftTimeLimitExceeded, WorkerShutdown
from celery.utils.serialization import get_pickleable_exception
from celery.worker import state as worker_state

from app import clock, db
from app.models import OutboxEntry, OutboxState
from app.outbox import guard
from app.outbox.guard import Delivery
from app.settings import load_settings
from app.tasks import BaseTask, attempts
from app.tasks.attempts import ENDS, AttemptError, How
from app.tasks.base import SKIPPED
from scripts.live.ending_jobs import ENDINGS, MAX_DELIVERIES, OPTIONS, POOLS
from tests.tracing import Outcome, deliver, deliver_foreign
from tests.unit.tasks.conftest import Bench, a_request, entry, failure

IN_A_PROCESS = [name for name, end in ENDINGS.items() if end.pools == POOLS]
"""The others need a pool: tests/integration/tasks/test_attempts.py."""


class Seen(NamedTuple):
    """What the first attempt of an entry leaves."""

    state: OutboxState
    error: str
    """The beginning of the entry's last error."""
    celery: str
    """The state that Celery reports."""


DONE, DEAD, PENDING = OutboxState.DONE, OutboxState.DEAD, OutboxState.PENDING
SECOND_DELIVERY = "enters its transaction although the work is done"
TABLE = {
    How.RETURNED: ("returns a value", Seen(DONE, "", states.SUCCESS)),
    How.SKIPPED: (SECOND_DELIVERY, Seen(DONE, "", states.SUCCESS)),
    How.UNFINISHED: ("returns a coroutine", Seen(DEAD, "UnfinishedWorkError", states.FAILURE)),
    How.IGNORED: ("Ignore", Seen(DONE, "", states.IGNORED)),
    How.ASKED: ("asks for a retry", Seen(PENDING, "the task asked for", states.RETRY)),
    How.TRANSIENT: ("a transient error", Seen(PENDING, "TransientError: x", states.RETRY)),
    How.TIMED_OUT: ("gevent.Timeout", Seen(PENDING, "Timeout: 0.5 seconds", states.RETRY)),
    How.REFUSED: ("Reject", Seen(DEAD, "Reject: rule", states.REJECTED)),
    How.GIVEN_BACK: ("Reject, requeued", Seen(PENDING, "Reject: rule", states.RETRY)),
    How.RAISED: ("an error", Seen(DEAD, "ValueError: never", states.FAILURE)),
    How.LEFT: ("sys.exit", Seen(DEAD, "SystemExit: 3", states.FAILURE)),
    How.HARD_LIMIT: ("a hard time limit", Seen(DEAD, "TimeLimitExceeded", states.FAILURE)),
    How.LOST: ("a killed child", Seen(PENDING, "WorkerLostError: killed", states.RETRY)),
}
"""The table of DESIGN, section 4, written anew: for each row an ending that leads to it."""
EVENTS = {"task-failed": states.FAILURE, "task-retried": states.RETRY}


@pytest.fixture(autouse=True)
def _few_deliveries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_DELIVERIES", str(MAX_DELIVERIES))
    load_settings.cache_clear()


@pytest.fixture(autouse=True)
def _workers_interrupts() -> Iterator[None]:
    """Ctrl-C is handled as in a worker, where no KeyboardInterrupt comes of it."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    yield
    signal.signal(signal.SIGINT, before)


def a_task(bench: Bench, end: str) -> Any:
    def body(self: Any) -> Any:
        return ENDINGS[end].body(self)

    options = {name: value for name, value in OPTIONS.items() if name not in {"base", "bind"}}
    return bench.task(body, **options)


def run_to_its_end(bench: Bench, end: str) -> tuple[OutboxEntry, list[Outcome]]:
    task = a_task(bench, end)
    message = bench.enqueue(task)
    outcomes = []
    row = entry(message.id)
    while row.state is OutboxState.PENDING and len(outcomes) < 10:
        outcomes.append(deliver(task, replace(message, tries=row.tries)))
        row = entry(message.id)
    return row, outcomes


@pytest.mark.parametrize("end", IN_A_PROCESS)
def test_an_entry_ends_within_its_bound_and_says_why(bench: Bench, end: str) -> None:
    row, outcomes = run_to_its_end(bench, end)
    wanted = ENDINGS[end]
    assert (row.state, len(outcomes)) == (wanted.state, wanted.starts)
    assert len(row.errors) == (wanted.starts if wanted.state is OutboxState.DEAD else 0)
    for error in row.errors[-1:]:
        assert error["error"].startswith(wanted.error)
        assert len(error["error"]) <= 500


@pytest.mark.parametrize("end", [name for name in IN_A_PROCESS if ENDINGS[name].starts == 1])
def test_a_message_without_an_entry_ends_the_same_way(bench: Bench, end: str) -> None:
    deliver_foreign(a_task(bench, end), "an-id")
    with db.reading() as session:
        row = session.get(OutboxEntry, "an-id")
        if ENDINGS[end].state is OutboxState.DONE:
            assert row is None
        else:
            assert row is not None
            assert row.state is OutboxState.DEAD
            assert row.errors[-1]["error"].startswith(ENDINGS[end].error)


@pytest.mark.parametrize("end", IN_A_PROCESS)
def test_every_pool_can_send_the_end_to_its_worker(bench: Bench, end: str) -> None:
    _, outcomes = run_to_its_end(bench, end)
    for outcome in outcomes:
        if isinstance(outcome.result, BaseException):
            assert isinstance(outcome.result, Exception)
            sent = pickle.dumps(get_pickleable_exception(outcome.result))
            assert len(sent) < 5 * attempts.LONGEST_TEXT


def report_to_the_worker(how: How, request: Any) -> None:
    """Do what a pool does where the body's process cannot report its end."""
    if how is How.HARD_LIMIT:
        request.on_timeout(soft=False, timeout=1)
    else:
        request.on_failure(failure(WorkerLostError("killed")))


def first_attempt(bench: Bench, how: How) -> Seen:
    ending, _ = TABLE[how]

    def second_delivery(self: Any) -> None:
        with db.transaction() as session:
            guard.mark_done(session, Delivery(message.id, task.name), now=clock.utcnow())
        with self.transaction():
            raise AssertionError("the guard lets nobody in")

    task = bench.task(second_delivery) if ending == SECOND_DELIVERY else a_task(bench, ending)
    message = bench.enqueue(task)
    if how in {How.HARD_LIMIT, How.LOST}:
        eventer = MagicMock(enabled=True)
        request = a_request(task, bench.broker.clock, task_id=message.id, eventer=eventer)
        with suppress(KeyError):
            report_to_the_worker(how, request)
        reported = "".join(EVENTS[call.args[0]] for call in eventer.send.call_args_list)
    else:
        reported = deliver(task, message).state
    row = entry(message.id)
    error = row.errors[-1]["error"] if row.errors else ""
    return Seen(row.state, error, reported)


def is_as_stated(seen: Seen, how: How) -> bool:
    stated = TABLE[how][1]
    return (seen.state, seen.celery) == (stated.state, stated.celery) and (
        seen.error.startswith(stated.error) and bool(seen.error) == bool(stated.error)
    )


@pytest.mark.parametrize("how", How)
def test_the_first_attempt_leaves_what_its_row_says(bench: Bench, how: How) -> None:
    assert is_as_stated(seen := first_attempt(bench, how), how), seen


@pytest.mark.parametrize("how", How)
def test_the_table_above_fails_for_a_row_that_is_gone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, how: How
) -> None:
    monkeypatch.setattr(attempts, "ENDS", {row: end for row, end in ENDS.items() if row != how})
    assert not is_as_stated(first_attempt(bench, how), how)


@pytest.mark.parametrize(
    ("raised", "state", "reported"),
    [
        (Ignore("no"), OutboxState.DONE, states.IGNORED),
        (Reject("no", requeue=False), OutboxState.DEAD, states.REJECTED),
        (Retry("later"), OutboxState.PENDING, states.RETRY),
        (ValueError("no"), OutboxState.PENDING, states.RETRY),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_celerys_own_exceptions_keep_their_meaning_where_every_error_is_transient(
    bench: Bench, raised: Exception, state: OutboxState, reported: str
) -> None:
    def body(self: BaseTask) -> None:
        raise raised

    task = bench.task(body, transient_errors=(Exception,))
    message = bench.enqueue(task)
    outcome = deliver(task, message)
    assert (entry(message.id).state, outcome.state) == (state, reported)


def test_a_second_delivery_is_skipped_where_every_error_is_transient(bench: Bench) -> None:
    def body(self: BaseTask) -> None:
        with self.transaction():
            pass

    task = bench.task(body, transient_errors=(Exception,))
    deliver_foreign(task, "an-id")
    outcome = deliver_foreign(task, "an-id")
    assert (outcome.state, outcome.result) == (states.SUCCESS, SKIPPED)


@pytest.mark.parametrize(
    ("transient", "state"),
    [((), OutboxState.DEAD), ((SoftTimeLimitExceeded,), OutboxState.PENDING)],
)
def test_a_soft_time_limit_fails_the_entry_unless_the_task_lists_it_as_transient(
    bench: Bench, transient: tuple[type[Exception], ...], state: OutboxState
) -> None:
    def body(self: BaseTask) -> None:
        raise SoftTimeLimitExceeded

    errors = (*BaseTask.transient_errors, *transient)
    task = bench.task(body, transient_errors=errors)
    message = bench.enqueue(task)
    deliver(task, message)
    assert entry(message.id).state is state


@pytest.mark.parametrize("status", [0, 1, True])
@pytest.mark.parametrize("asked", ["should_stop", "should_terminate"])
def test_a_shutdown_that_a_signal_asked_for_leaves_the_entry_as_it_is(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, asked: str, status: int
) -> None:
    """SIGTERM sets ``should_stop`` to EX_OK, which is 0 (celery/apps/worker.py)."""
    monkeypatch.setattr(worker_state, asked, status)
    task = a_task(bench, "WorkerShutdown")
    message = bench.enqueue(task)
    with pytest.raises(WorkerShutdown):
        deliver(task, message)
    assert (entry(message.id).state, entry(message.id).errors) == (OutboxState.PENDING, [])


def test_a_coroutine_that_never_ran_is_closed_without_a_warning(bench: Bench) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_to_its_end(bench, "returns a coroutine")
        gc.collect()


def test_an_error_that_stands_for_another_keeps_its_traceback(bench: Bench) -> None:
    row, outcomes = run_to_its_end(bench, "sys.exit")
    assert isinstance(outcomes[0].result, AttemptError)
    assert "ending_jobs.py" in row.errors[-1]["traceback"]


def test_an_error_that_harms_nobody_is_reported_as_it_is(bench: Bench) -> None:
    _, outcomes = run_to_its_end(bench, "an error")
    assert type(outcomes[0].result) is ValueError
