"""What a worker's main process records beside its loop: until it is recorded, then acknowledged."""

from collections.abc import Callable, Iterator
from time import monotonic, sleep
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery import signals
from celery.bootsteps import CLOSE, RUN
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app import db
from app.models import OutboxState
from app.outbox import guard
from app.outbox.guard import Delivery
from app.tasks import recorder
from app.tasks.base import BaseTask
from app.tasks.recorder import Recorder
from tests.database import on_postgresql
from tests.unit.tasks.conftest import Bench, a_request, entry, failure

PATIENCE = 10.0


class Loop:
    """A worker, whose loop runs what it was called for when the test says so."""

    def __init__(self) -> None:
        self.called: list[Callable[[], None]] = []
        self.blueprint = SimpleNamespace(state=RUN)
        self.consumer: Any = SimpleNamespace(call_soon=self.called.append, qos=MagicMock())

    def run(self) -> None:
        deadline = monotonic() + PATIENCE
        while not self.called:
            assert monotonic() < deadline
            sleep(0.01)
        self.called.pop()()


@pytest.fixture
def worker(database: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    monkeypatch.setattr(recorder, "_recorder", None)
    monkeypatch.setattr(recorder, "AGAIN_SECONDS", 0.05)
    monkeypatch.setattr(recorder, "LAST_SECONDS", 0.5)
    made = Loop()
    Recorder(made).start(made)
    yield made
    signals.worker_shutdown.send(sender=made)


def failing(times: int) -> MagicMock:
    away = OperationalError("", {}, Exception("away"))
    return MagicMock(side_effect=[*[away] * times, None])


def test_what_fails_is_tried_until_it_is_recorded(worker: Loop) -> None:
    act, then = failing(times=3), MagicMock()
    recorder.record("it", act, then=then)
    worker.run()
    assert (act.call_count, then.call_count) == (4, 1)


def test_what_fails_holds_up_no_other_record(worker: Loop) -> None:
    stuck, other, then = failing(times=1000), MagicMock(), MagicMock()
    recorder.record("stuck", stuck, then=MagicMock())
    recorder.record("other", other, then=then)
    worker.run()
    assert then.call_count == 1


def test_a_worker_takes_another_message_meanwhile(worker: Loop) -> None:
    """It has a credit for each of its slots, and the slot is free again."""
    recorder.record("it", failing(times=2), then=MagicMock())
    qos = worker.consumer.qos
    assert (qos.increment_eventually.call_count, qos.decrement_eventually.call_count) == (1, 0)
    worker.run()
    assert qos.decrement_eventually.call_count == 1


def test_a_new_connection_knows_nothing_of_the_credit(worker: Loop) -> None:
    recorder.record("it", failing(times=2), then=MagicMock())
    worker.consumer.qos = MagicMock()
    worker.run()
    assert worker.consumer.qos.decrement_eventually.call_count == 0


def test_an_error_of_ours_is_not_tried_again(worker: Loop) -> None:
    act, then = MagicMock(side_effect=KeyError), MagicMock()
    recorder.record("it", act, then=then)
    worker.run()
    assert (act.call_count, then.call_count) == (1, 1)


def test_a_worker_that_stops_waits_for_its_records(worker: Loop) -> None:
    worker.blueprint.state = CLOSE
    act, then = failing(times=2), MagicMock()
    recorder.record("it", act, then=then)
    assert (act.call_count, then.call_count) == (3, 1)


def test_a_worker_that_stops_leaves_what_cannot_be_recorded_to_the_next_one(worker: Loop) -> None:
    worker.blueprint.state = CLOSE
    then = MagicMock()
    began = monotonic()
    for _ in range(10):
        recorder.record("it", failing(times=1000), then=then)
    assert monotonic() - began < 2
    assert not then.called


def limited(request: Any) -> None:
    request.on_failure(failure(TimeLimitExceeded(5)))
    request.on_timeout(soft=False, timeout=5)


def lost(request: Any) -> None:
    request.on_failure(failure(WorkerLostError("killed")))


@on_postgresql
@pytest.mark.parametrize(
    ("end", "stamped", "state"),
    [
        (limited, True, OutboxState.DEAD),
        (limited, False, OutboxState.DEAD),
        (lost, True, OutboxState.PENDING),
        (lost, False, OutboxState.DEAD),
    ],
)
def test_a_message_is_acknowledged_when_its_locked_entry_has_its_end(
    bench: Bench, worker: Loop, end: Callable[[Any], None], stamped: bool, state: OutboxState
) -> None:
    """The transaction of the child that was killed is open still."""

    def body(self: BaseTask) -> None:
        raise AssertionError("never runs here")

    task = bench.task(body, max_retries=0)
    task_id = bench.enqueue(task).id if stamped else "foreign"
    request = a_request(task, bench.broker.clock, stamped=stamped, task_id=task_id)
    with Session(db.engine()) as child:
        of_child = Delivery(task_id, task.name, from_outbox=stamped)
        guard.mark_done(child, of_child, now=bench.broker.clock.now)
        began = monotonic()
        end(request)
        assert monotonic() - began < 0.5
        sleep(0.2)
        assert not request.acknowledged
        child.rollback()
    worker.run()
    assert request.acknowledged
    assert entry(task_id).state is state
    assert len(entry(task_id).errors) == 1
