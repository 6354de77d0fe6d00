"""How many messages a worker holds for a rate limit, and when the others come back."""

import sqlite3
from collections import deque
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from kombu.common import QoS
from psycopg.errors import LockNotAvailable
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from app.outbox.guard import Delivery
from app.tasks import consumer as module
from app.tasks.consumer import LONGEST_POSTPONEMENT, SHORTEST_LINE, Line, OutboxConsumer

PER_SECOND = 0.1


class Ticks:
    """A clock that stands still, and what is to be called later."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.planned: list[tuple[float, Any, tuple[Any, ...]]] = []
        self.errors = 0

    def __call__(self) -> float:
        return self.now

    def call_after(self, seconds: float, call: Any, args: tuple[Any, ...] = (), **_: Any) -> None:
        self.planned.append((self.now + seconds, call, args))

    def go_to(self, instant: float) -> None:
        while due := [each for each in self.planned if each[0] <= instant]:
            first = min(due, key=lambda each: each[0])
            self.planned.remove(first)
            # A token is complete a moment after its instant, for a computer counts in halves.
            self.now = max(self.now, first[0]) + 1e-6
            try:
                first[1](*first[2])
            except RuntimeError:
                self.errors += 1  # a worker's event loop logs it and goes on
        self.now = instant


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> Ticks:
    made = Ticks()
    monkeypatch.setattr(module, "monotonic", made)
    monkeypatch.setattr("kombu.utils.limits.monotonic", made)
    return made


def full(line: Line) -> Line:
    assert line.can_consume()
    for _ in range(line.length):
        line.add((None, 1))
    return line


def test_a_line_holds_the_starts_of_some_seconds_and_at_least_ten() -> None:
    assert [Line(rate).length for rate in (0.1, 1, 2, 100)] == [SHORTEST_LINE] * 3 + [500]


def test_each_message_behind_a_full_line_gets_a_turn_of_its_own(ticks: Ticks) -> None:
    """The first behind ten starts at 110 s, and comes back when five are before it."""
    line = full(Line(PER_SECOND))
    rng = Random(1)
    assert [round(line.postponement(rng)) for _ in range(4)] == [60, 70, 80, 90]
    ticks.now += 30
    assert round(line.postponement(rng)) == 70


def test_no_message_stays_away_for_longer_than_five_minutes(ticks: Ticks) -> None:
    line = full(Line(PER_SECOND))
    rng = Random(1)
    waits = [line.postponement(rng) for _ in range(1000)]
    assert max(waits) <= LONGEST_POSTPONEMENT
    unplanned = sorted(waits)[25:]
    assert min(unplanned) > LONGEST_POSTPONEMENT / 2 - 1 / PER_SECOND
    assert len({round(wait) for wait in unplanned}) > 100, "they do not come back together"


@pytest.fixture
def worker(ticks: Ticks, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A consumer without a broker, whose task ``slow`` may start once in ten seconds."""
    made: Any = OutboxConsumer.__new__(OutboxConsumer)
    made.app = SimpleNamespace(tasks={"slow": SimpleNamespace(rate_limit="6/m")})
    made.task_buckets = {}
    made.reset_rate_limits()
    made.timer, made._limit_order, made._due = ticks, 0, deque()
    made.qos = QoS(lambda prefetch_count: None, 2)
    made.pool = SimpleNamespace(num_processes=2)
    made.started = []
    made.on_task_request = made.started.append
    monkeypatch.setattr("celery.worker.consumer.consumer.task_reserved", lambda request: None)
    monkeypatch.setattr(module, "state", SimpleNamespace(reserved_requests=set()))
    return made


class Request:
    def __init__(self, number: int) -> None:
        self.id = number


def receive(worker: Any, count: int) -> None:
    for number in range(count):
        worker._limit_task(Request(number), worker.task_buckets["slow"], 1)


def test_what_waits_has_a_credit_of_its_own_until_it_starts(worker: Any, ticks: Ticks) -> None:
    receive(worker, 4)
    assert (len(worker.started), worker.qos.value) == (1, 2 + 3)
    ticks.go_to(1025)
    assert (len(worker.started), worker.qos.value) == (3, 2 + 1)


def test_a_line_has_one_timer_however_many_wait(worker: Any, ticks: Ticks) -> None:
    receive(worker, 9)
    assert len(ticks.planned) == 1


def test_a_limit_that_changes_takes_over_what_waits(worker: Any, ticks: Ticks) -> None:
    receive(worker, 5)
    worker.app.tasks["slow"].rate_limit = "1/s"
    worker.reset_rate_limits()
    ticks.go_to(1002.5)
    assert (len(worker.started), worker.qos.value) == (4, 2 + 1)


def test_a_limit_that_is_taken_away_starts_what_waits(worker: Any, ticks: Ticks) -> None:
    receive(worker, 5)
    worker.app.tasks["slow"].rate_limit = None
    worker.reset_rate_limits()
    assert (len(worker.started), worker.qos.value) == (5, 2)


def test_a_change_of_another_tasks_limit_gives_no_token(worker: Any, ticks: Ticks) -> None:
    receive(worker, 2)
    worker.reset_rate_limits()
    ticks.go_to(1005)
    assert len(worker.started) == 1


def test_what_waited_leaves_every_second_slot_to_messages_from_redis(
    worker: Any, ticks: Ticks
) -> None:
    busy = module.state.reserved_requests
    busy.update({"a", "b"})
    worker.given = 7
    assert [worker._may_start() for _ in range(2)] == [True, False]
    worker.given = 8
    assert [worker._may_start() for _ in range(2)] == [True, False]
    busy.clear()
    assert [worker._may_start() for _ in range(2)] == [True, True]


def test_what_waited_starts_on_a_busy_worker_that_prefetches_more_than_its_slots(
    worker: Any, ticks: Ticks
) -> None:
    module.state.reserved_requests.update({"a", "b", "prefetched", "prefetched too"})
    worker.given = 7
    assert [worker._may_start() for _ in range(2)] == [True, False]


class Message:
    acknowledged = False


@pytest.fixture
def handle(worker: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give the worker a message from Redis, which Celery would pass to this handler."""
    worker.connection_errors = worker.channel_errors = ()
    monkeypatch.setattr(module.messages, "check", lambda message: None)

    def give(handler: Any) -> None:
        monkeypatch.setattr(
            module.Consumer, "create_task_handler", lambda self, promise: lambda _: handler()
        )
        worker.create_task_handler()(Message())

    return give


def test_a_flood_of_limited_messages_does_not_fill_a_busy_pool(worker: Any, handle: Any) -> None:
    """Only a message that went from Redis to the pool lets one that waited follow it."""
    receive(worker, 1)
    module.state.reserved_requests.update({"a", "b"})
    for _ in range(3):
        handle(lambda: receive(worker, 1))
    assert not worker._may_start()
    handle(lambda: None)
    assert worker._may_start()


ROOMY = 10


@pytest.fixture
def closing(worker: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The worker, whose pool takes nothing until ``closing.clear()``."""
    worker.pool.num_processes = ROOMY
    refusing = ["refuses"]

    def offer(request: Any) -> None:
        if refusing:
            raise RuntimeError("cannot schedule new futures after shutdown")
        worker.started.append(request)

    worker.on_task_request = offer
    return refusing


def test_tasks_with_an_eta_go_on_after_one_that_the_pool_did_not_take(
    worker: Any, ticks: Ticks, closing: list[str]
) -> None:
    worker.qos.increment_eventually(3)
    for number in range(3):
        ticks.call_after(0, worker.apply_eta_task, (Request(number),))
    ticks.go_to(1001)
    assert worker.started == []
    closing.clear()
    ticks.go_to(1010)
    assert sorted(request.id for request in worker.started) == [0, 1, 2]
    assert (worker.qos.value, ticks.planned) == (2, [])


def test_tasks_with_an_eta_go_on_after_a_pool_that_could_not_be_asked(
    worker: Any, ticks: Ticks
) -> None:
    class Gone:
        @property
        def num_processes(self) -> int:
            raise RuntimeError("the pool is gone")

    worker.pool = Gone()
    for number in range(2):
        ticks.call_after(0, worker.apply_eta_task, (Request(number),))
    ticks.go_to(1001)
    assert ticks.errors > 1
    worker.pool = SimpleNamespace(num_processes=ROOMY)
    ticks.go_to(1010)
    assert len(worker.started) == 2


def test_a_line_goes_on_after_a_message_that_the_pool_did_not_take(
    worker: Any, ticks: Ticks, closing: list[str]
) -> None:
    closing.clear()
    receive(worker, 4)
    closing.append("refuses")
    ticks.go_to(1015)
    closing.clear()
    ticks.go_to(1050)
    assert sorted(request.id for request in worker.started) == [0, 1, 2, 3]
    assert worker.qos.value == 2


def test_a_line_goes_on_after_a_pool_that_could_not_be_asked(worker: Any, ticks: Ticks) -> None:
    receive(worker, 3)
    asked = worker._may_start

    def fail() -> bool:
        raise RuntimeError("the pool is gone")

    worker._may_start = fail
    ticks.go_to(1015)
    assert ticks.errors > 0
    worker._may_start = asked
    ticks.go_to(1050)
    assert len(worker.started) == 3


def test_a_message_that_the_pool_did_not_take_has_no_slot(
    worker: Any, ticks: Ticks, closing: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "celery.worker.consumer.consumer.task_reserved",
        module.state.reserved_requests.add,
    )
    ticks.call_after(0, worker.apply_eta_task, (Request(1),))
    ticks.go_to(1001)
    assert not module.state.reserved_requests


def test_a_limit_that_is_taken_away_fills_the_free_slots_only(worker: Any, ticks: Ticks) -> None:
    receive(worker, 8)
    module.state.reserved_requests.update({"a", "b"})
    worker.app.tasks["slow"].rate_limit = None
    worker.reset_rate_limits()
    assert len(worker.started) == 1
    module.state.reserved_requests.clear()
    ticks.go_to(1001)
    assert (len(worker.started), worker.qos.value) == (8, 2)


def test_a_message_that_cannot_be_postponed_waits_in_the_worker(
    worker: Any, database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the reason is: the message is not at fault, and becomes no dead letter."""

    def fail(*_: Any, **__: Any) -> None:
        raise LookupError("no such column")

    monkeypatch.setattr(module.guard, "wait", fail)
    receive_one_too_many(worker, monkeypatch)
    assert worker.qos.value == 2 + SHORTEST_LINE + 1


def receive_one_too_many(worker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.messages, "delivery_of", lambda message: Delivery("id", "slow"))
    receive(worker, 1 + SHORTEST_LINE)
    request: Any = Request(99)
    request.message, request.eta = None, None
    request.task = worker.app.tasks["slow"]
    worker._limit_task(request, worker.task_buckets["slow"], 1)


@pytest.mark.parametrize(
    ("error", "stops"),
    [(sqlite3.OperationalError("database is locked"), True), (LockNotAvailable(), False)],
)
def test_a_locked_row_is_not_an_outage(
    worker: Any,
    database: Engine,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    stops: bool,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OperationalError("", {}, error)

    monkeypatch.setattr(module.guard, "wait", fail)
    receive_one_too_many(worker, monkeypatch)
    assert worker.outage.is_on is stops
    assert worker.qos.value == 2 + SHORTEST_LINE + 1


def test_a_lost_connection_leaves_no_timer_that_is_waited_for(worker: Any, ticks: Ticks) -> None:
    """Celery cancels the timers of the connection, and what waits comes again."""
    worker.controller, worker.pool.flush = None, None
    worker.hub = SimpleNamespace(call_later=lambda seconds, call: ticks.call_after(seconds, call))
    worker.on_send_event_buffered()
    module.state.reserved_requests.update({"a", "b"})
    worker.apply_eta_task(Request(1))
    worker.on_close()
    ticks.planned.clear()
    module.state.reserved_requests.clear()
    worker.apply_eta_task(Request(1))
    worker.on_send_event_buffered()
    assert (len(worker.started), len(ticks.planned)) == (1, 1)
