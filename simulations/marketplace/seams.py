"""Where the real ``app`` is given virtual time's parts: the whole list of what is not real."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import count
from types import SimpleNamespace
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import event, exists, select

import app.tasks
from app import db, entropy, outbox
from app.models import OUTBOX_ENTRIES, OutboxEntry
from app.outbox import BrokerUnavailableError
from app.outbox.figures import first_due
from app.outbox.schedule import MOST_CLOCK_ERROR, advance, remembered
from app.settings import load_settings
from app.tasks import (
    broker,
    cache,
    email,
    outage,
    recorder,
    scheduler,
    startup,
    timetable,
    watchdog,
    worker_thread,
)
from app.tasks.broker import RedisBroker
from simulations.engine import Deployment
from simulations.engine.loop import Ticker
from simulations.engine.worker import WorkerProcess
from simulations.marketplace.database import Database
from simulations.marketplace.mail import MailProvider
from simulations.marketplace.slot_cache import MemorySlotCache

# No page listens, and no line is written to a file of the machine that replays.
_PIDS = count(-1, -1)
_RECORDERS: WeakKeyDictionary[WorkerProcess, tuple[recorder.Recorder, Ticker]] = WeakKeyDictionary()
_WAITING = select(
    exists()
    .where(OutboxEntry.pending(), OUTBOX_ENTRIES.c.published_at.is_not(None))
    .label("with_broker"),
    first_due().label("next_row"),
)
ENVIRONMENT = {"METRICS_PORT": "0", "BEAT_METRICS_PORT": "0", "LOG_DIR": ""}


@contextmanager
def settings_in_force() -> Iterator[None]:
    """The settings of the environment, without what opens ports or writes files."""
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    os.environ.update(ENVIRONMENT)
    load_settings.cache_clear()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        load_settings.cache_clear()


@contextmanager
def seams(
    deployment: Deployment,
    provider: MailProvider,
    slots: MemorySlotCache,
) -> Iterator[None]:
    """Let ``app`` draw from the seed, mail to ``provider`` and cache in ``slots``."""

    @contextmanager
    def slot_cache_from(_settings: object) -> Iterator[MemorySlotCache]:
        slots.down = deployment.broker.down
        yield slots

    with ExitStack() as stack:
        for module in (email, startup):
            stack.enter_context(_replaced(module, "mailer_from", lambda _settings: provider))
        stack.enter_context(_replaced(cache, "slot_cache_from", slot_cache_from))
        stack.enter_context(_replaced(scheduler, "advance", _told(deployment, advance)))
        stack.enter_context(
            _replaced(worker_thread.WorkerThread, "start", lambda step, _: _tick(deployment, step))
        )
        stack.enter_context(
            _replaced(watchdog.Watchdog, "_end_process", lambda _step, _look: _exit(deployment))
        )
        stack.enter_context(_replaced(outage, "give_back", _given_back(deployment)))
        stack.enter_context(_replaced(recorder, "_recorder", None))  # and as before at the end
        stack.enter_context(_replaced(recorder, "record", _record(deployment)))
        stack.enter_context(_replaced(recorder, "LAST_SECONDS", 0.0))  # they would be real ones
        # To a broker's connections each replay is a process of its own, as after a fork.
        pid = next(_PIDS)
        stack.enter_context(_replaced(broker, "os", SimpleNamespace(getpid=lambda: pid)))
        source = entropy.use(deployment.rng("app"))
        stack.callback(entropy.use, source)
        timeout = load_settings().publish_timeout_seconds
        replaced = outbox.attach(RedisBroker(app.tasks.celery_app, timeout=timeout))
        stack.callback(outbox.attach, replaced)
        yield


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _told(deployment: Deployment, step_of: Callable[..., int | None]) -> Callable[..., int | None]:
    """The scheduler's step, whose runs are in the trace once they are committed."""

    def told(session: Any, entry: Any, seen: Any, step: Any) -> int | None:
        runs = step_of(session, entry, seen, step)
        if runs:
            process = deployment.loop.current
            beat = process.name if process is not None else None

            def committed(_session: Any) -> None:
                for due in step.runs:
                    deployment.trace.emit("beat", entry=entry.name, due=due.isoformat(), by=beat)

            event.listen(session, "after_commit", committed, once=True)
        return runs

    return told


def _given_back(deployment: Deployment) -> Callable[[Any, str], None]:
    """The move of a message back to its queue, which is in the trace."""
    move = outage.give_back

    def told(channel: Any, delivery_tag: str) -> None:
        message = channel.qos._delivered.get(delivery_tag)
        move(channel, delivery_tag)
        if message is not None:
            queue = message.delivery_info["routing_key"]
            headers = message.headers
            deployment.trace.emit(
                "redelivered", task=headers.get("task"), id=headers.get("id"), queue=queue
            )

    return told


def _record(deployment: Deployment) -> Callable[..., None]:
    """Gives a record to the recorder of the running worker, for all workers share its module."""

    def record(
        what: str, act: Callable[[], object], *, then: Callable[[], None] | None = None
    ) -> None:
        step, ticker = _RECORDERS[deployment.worker_running()]
        step.add(what, act, then)
        ticker.hurry()

    return record


def _tick(deployment: Deployment, step: worker_thread.WorkerThread) -> None:
    """What a worker's thread does, on the event loop."""
    step.prepare()
    process = deployment.worker_running()

    def repeat() -> None:
        with suppress(BrokerUnavailableError):
            step.repeat()
        process.look_around()

    name = type(step).__name__
    quiet_until = _QUIET_UNTIL.get(name, _never)
    ticker = deployment.loop.every(
        process, name, step.interval, repeat, lambda: quiet_until(deployment, process)
    )
    if isinstance(step, recorder.Recorder):
        _RECORDERS[process] = step, ticker


def _never(_deployment: Deployment, _process: WorkerProcess) -> datetime | None:
    """Nobody pauses a queue in a replay."""
    return None


def _holds_nothing(deployment: Deployment, process: WorkerProcess) -> datetime | None:
    # The lease also compares the clocks, which differ where the worker's is wrong.
    return deployment.now if process.holds_messages or process.clock_error else None


def _reaches_database(deployment: Deployment, process: WorkerProcess) -> datetime | None:
    consumer = getattr(process.controller, "consumer", None)
    return deployment.now if consumer is not None and consumer.outage.is_on else None


def _all_is_recorded(deployment: Deployment, process: WorkerProcess) -> datetime | None:
    step, _ = _RECORDERS[process]
    return deployment.now if step.unrecorded else None


def _nothing_waits(deployment: Deployment, _process: WorkerProcess) -> datetime | None:
    queues = deployment.app.amqp.queues
    return deployment.now if deployment.broker.has_waiting(list(queues)) else None


_QUIET_UNTIL = {
    "DatabaseWatch": _reaches_database,
    "Lease": _holds_nothing,
    "Recorder": _all_is_recorded,
    "Watchdog": _nothing_waits,
}


def _exit(deployment: Deployment) -> None:
    process = deployment.worker_running()
    deployment.trace.emit("stuck", worker=process.name)
    process.exit(watchdog.EXIT_STATUS)


class QuietBeat:
    """Says until when a beat's ticks would do nothing: no entry is due, and no row waits.

    Where anything is with the broker, the pump looks after it at every tick.
    """

    def __init__(self, deployment: Callable[[], Deployment], database: Database) -> None:
        self._deployment = deployment
        self._database = database
        self._known: tuple[int, datetime | None] = (-1, None)
        self._next_due = {
            name: lru_cache(maxsize=1)(
                timetable.periodic(name, entry, app.tasks.celery_app).next_due
            )
            for name, entry in timetable.entries_of(app.tasks.celery_app).items()
        }

    def __call__(self) -> datetime | None:
        now = self._deployment().now
        if self._deployment().broker.down or self._database.locked:
            return now
        commits, until = self._known
        if commits != self._database.commits:
            until = self._read()
            self._known = self._database.commits, until
        return now if until is None else until - self._furthest_ahead()

    def _furthest_ahead(self) -> timedelta:
        """Of the clocks of beats that fire: by that one it is due so much earlier."""
        errors = (beat.clock_error for beat in self._deployment().beats.values())
        return max(error for error in (timedelta(0), *errors) if error <= MOST_CLOCK_ERROR)

    def _read(self) -> datetime | None:
        """The first instant at which there is something to do; ``None`` for now."""
        with db.reading_tables() as connection:
            waiting = connection.execute(_WAITING).one()
            if waiting.with_broker:
                return None
            seen = remembered(connection)
        next_row: datetime | None = waiting.next_row
        if set(seen) < set(self._next_due):
            return None
        dues = [self._next_due[name](seen[name].last_due) for name in self._next_due]
        return min([*dues, *([] if next_row is None else [next_row])])
