"""A Celery deployment on virtual time, in one process."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, TextIO

from celery import Celery, signals
from kombu.utils.imports import symbol_by_name

from simulations.engine.beat import BeatProcess
from simulations.engine.broker import VirtualBroker
from simulations.engine.clock import VirtualClock
from simulations.engine.connections import on_virtual_broker
from simulations.engine.loop import EventLoop, QuietUntil
from simulations.engine.pool import ServiceTime, ServiceTimes
from simulations.engine.process import Process, SimulationError
from simulations.engine.randomness import seeded
from simulations.engine.trace import Trace
from simulations.engine.worker import RESTART_SECONDS, WorkerGroup, WorkerProcess


class Deployment:
    """Workers, beats and a broker of ``app``, from ``start`` (aware) on.

        with Deployment(app, start=..., seed=7) as deployment:
            deployment.run_until(deployment.now + timedelta(hours=24))

    Inside the block all clocks of this process are virtual, ``time.sleep`` takes no time,
    and what ``app`` publishes goes to a broker in memory, or to the empty Redis database
    behind ``broker_url``. The same arguments give the same trace. Not for two at a time.

    ``workers`` says which workers there are, ``beats`` how many beats. ``service_times``
    tells how long a run takes (by default no time). ``beat_quiet_until`` may say when a
    beat's ticks would do nothing, so that they need not be run.
    """

    def __init__(
        self,
        app: Celery,
        *,
        start: datetime,
        seed: int = 0,
        workers: Sequence[WorkerGroup] = (WorkerGroup(),),
        beats: int = 1,
        broker_url: str | None = None,
        service_times: ServiceTimes | None = None,
        beat_quiet_until: QuietUntil | None = None,
        skip_quiet_ticks: bool = True,
        trace_into: TextIO | None = None,
    ) -> None:
        self.app = app
        self.seed = seed
        self.clock = VirtualClock(start)
        self.loop = EventLoop(self.clock, skip_quiet_ticks=skip_quiet_ticks)
        self.trace = Trace(lambda: self.clock.now, trace_into)
        self.service_times = service_times or (lambda _task: ServiceTime())
        self.workers: dict[str, WorkerProcess] = {}
        self.beats: dict[str, BeatProcess] = {}
        self.web = Process(self.loop, "web")
        """The process of whoever is neither worker nor beat: it books and publishes."""
        self._groups = tuple(workers)
        self._beat_count = beats
        self._broker_url = broker_url
        self._beat_quiet_until = beat_quiet_until
        self._held_down: Counter[str] = Counter()
        self._clock_errors: dict[str, dict[object, timedelta]] = {}
        self._stack = ExitStack()
        self.consumer_class: type[Any] = object
        self.broker: VirtualBroker

    @property
    def now(self) -> datetime:
        """The present virtual instant (aware, UTC)."""
        return self.clock.now

    def worker_running(self) -> WorkerProcess:
        """The worker in whose process this is called."""
        running = self.loop.running
        if not isinstance(running, WorkerProcess):
            raise SimulationError(f"{running.name} is no worker")
        return running

    def rng(self, purpose: str) -> Random:
        """A generator of its own for each purpose, so that one more draw moves no other."""
        return Random(f"{self.seed}:{purpose}")

    def __enter__(self) -> Deployment:
        with ExitStack() as stack:
            # Imported before time is virtual: nothing may bind a frozen clock for good.
            self.app.finalize()
            self.app.loader.import_default_modules()
            self.consumer_class = self._consuming()
            stack.enter_context(_quiet_logs())
            stack.enter_context(_rare_collections())
            self.broker = VirtualBroker(
                self.loop,
                self.trace,
                url=self._broker_url,
                transport_options=self.app.conf.broker_transport_options,
            )
            stack.callback(self.broker.close)
            stack.enter_context(self.clock.in_force(self.loop.sleep))
            stack.enter_context(seeded(self.rng("celery")))
            stack.enter_context(on_virtual_broker(self.app, self.broker))
            for told, of in (
                (signals.task_received, self._received),
                (signals.task_unknown, self._discarded),
            ):
                told.connect(of)
                stack.callback(told.disconnect, of)
            stack.enter_context(self._interruptible())
            stack.callback(self._end_processes)
            for group in self._groups:
                for number in range(1, group.workers + 1):
                    self.start_worker(f"{group.name}{number}", group)
            for number in range(1, self._beat_count + 1):
                self.start_beat(f"beat{number}")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._stack.close()

    def run_until(self, end: datetime) -> None:
        """Let everything happen up to ``end`` (aware), that instant included."""
        self.loop.run_until(end)

    def run_for(self, duration: timedelta) -> None:
        self.run_until(self.now + duration)

    def call_at(self, when: datetime, call: Callable[[], None]) -> None:
        """Do ``call`` at ``when`` in the web process, where it may sleep and publish."""

        def begin() -> None:
            self.web.spawn(call)

        self.loop.call_at(when, begin)

    def start_worker(self, name: str, group: WorkerGroup) -> None:
        def again() -> None:
            if not self._held_down[name] and not self._ending:
                self.loop.call_later(RESTART_SECONDS, lambda: self._revive(name, group))

        worker = WorkerProcess(self, name, group, on_end=again)
        worker.clock_error = self._clock_error(name)
        self.workers[name] = worker
        worker.start(worker.run)

    def _revive(self, name: str, group: WorkerGroup) -> None:
        if not self._held_down[name] and not self.workers[name].alive:
            self.start_worker(name, group)

    def start_beat(self, name: str) -> None:
        def again() -> None:
            if not self._held_down[name] and not self._ending:
                self.loop.call_later(RESTART_SECONDS, lambda: self._revive_beat(name))

        beat = BeatProcess(self, name, on_end=again, quiet_until=self._beat_quiet_until)
        beat.clock_error = self._clock_error(name)
        self.beats[name] = beat
        beat.start(beat.run)

    def _revive_beat(self, name: str) -> None:
        if not self._held_down[name] and not self.beats[name].alive:
            self.start_beat(name)

    def mislead(self, name: str, error: timedelta) -> Callable[[], None]:
        """Let the clock of a worker or beat be off, also after it was started again.

        What is returned ends it. Of several errors the last one counts.
        """
        errors = self._clock_errors.setdefault(name, {})
        key = object()
        errors[key] = error
        self._process(name).clock_error = error

        def end() -> None:
            del errors[key]
            self._process(name).clock_error = self._clock_error(name)

        return end

    def _clock_error(self, name: str) -> timedelta:
        return next(reversed(self._clock_errors.get(name, {}).values()), timedelta(0))

    def _process(self, name: str) -> Process:
        return self.workers[name] if name in self.workers else self.beats[name]

    def hold_down(self, name: str) -> None:
        """Kill a worker or beat, and do not let its supervisor start it again."""
        self._held_down[name] += 1
        self._process(name).kill()

    def let_start(self, name: str) -> None:
        """Let what was held down start now, unless somebody else holds it down too."""
        self._held_down[name] -= 1
        if name in self.workers:
            self._revive(name, self.workers[name].group)
        else:
            self._revive_beat(name)

    _ending = False

    def _end_processes(self) -> None:
        self._ending = True
        self.trace.end()
        self.loop.stop_for = None
        for process in (*self.workers.values(), *self.beats.values(), self.web):
            process.kill()
        self.loop.run_until(self.now)

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Let Ctrl-C end the replay: raised in a worker, Celery would take it for its own."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def interrupt(*_: Any) -> None:
            self.loop.stop_for = KeyboardInterrupt()

        before = signal.signal(signal.SIGINT, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _received(self, request: Any, **_: Any) -> None:
        running = self.loop.current
        if isinstance(running, WorkerProcess):
            self.trace.emit(
                "received",
                task=request.name,
                id=request.id,
                queue=request.delivery_info.get("routing_key"),
                worker=running.name,
            )

    def _discarded(self, message: Any, name: str, id: str, **_: Any) -> None:
        running = self.loop.current
        if isinstance(running, WorkerProcess):
            self.trace.emit(
                "discarded",
                task=name,
                id=id,
                queue=message.delivery_info.get("routing_key"),
                worker=running.name,
            )

    def _consuming(self) -> type[Any]:
        """The app's consumer, with a loop on virtual time."""
        given = symbol_by_name(self.app.conf.worker_consumer)

        def loop(consumer: Any, connection: Any, task_consumer: Any, *args: Any) -> None:
            self.worker_running().consume(consumer, connection, task_consumer, *args)

        return type(given.__name__, (given,), {"loop": staticmethod(loop)})


@contextmanager
def _rare_collections() -> Iterator[None]:
    """A replay makes garbage fast and keeps little: looking through it costs a seventh."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


@contextmanager
def _quiet_logs() -> Iterator[None]:
    """The trace says what happens; hundreds of thousands of log lines would cost minutes.

    Nor is what a process says past its log, as one does that cannot start, for the terminal of
    whoever replays it.
    """
    before, stderr = logging.root.manager.disable, sys.__stderr__
    logging.disable(logging.CRITICAL)
    with Path(os.devnull).open("w") as nowhere:
        sys.__stderr__ = nowhere  # type: ignore[misc]
        try:
            yield
        finally:
            sys.__stderr__ = stderr  # type: ignore[misc]
            logging.disable(before)
