"""A real Celery worker on virtual time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from queue import Empty
from typing import TYPE_CHECKING, Any

from celery import Celery
from celery.bootsteps import RUN  # type: ignore[attr-defined]  # celery-types lacks it
from celery.exceptions import WorkerShutdown
from celery.worker import WorkController
from celery.worker import state as typed_state
from greenlet import getcurrent, greenlet

from simulations.engine.pool import VirtualPool
from simulations.engine.process import Process
from simulations.engine.timer import VirtualTimer

if TYPE_CHECKING:
    from simulations.engine.deployment import Deployment

state: Any = typed_state  # celery-types lacks much of it

RESTART_SECONDS = 3.0
"""After this a supervisor has started a process again."""


@dataclass(frozen=True)
class WorkerGroup:
    """So many workers, each with so many slots, that serve the same queues."""

    workers: int = 1
    concurrency: int = 2
    queues: tuple[str, ...] = ()
    """All of the app's where none is named."""
    name: str = "worker"


class ProcessState:
    """What ``celery.worker.state`` keeps for the one worker of a real process."""

    def __init__(self, app: Celery, queues: Sequence[str]) -> None:
        self._app = app
        self._queues: Any = None if not queues else {name: app.amqp.queues[name] for name in queues}
        self._kept: list[Any] = [{}, set(), set(), set(), {}, [0]]
        self._stop: tuple[Any, Any] = (None, None)

    def put_in_force(self) -> None:
        requests, reserved, active, scheduled, counts, total = self._kept
        for live, kept in self._pairs(requests, reserved, active, scheduled):
            if live:
                live.clear()
            if kept:
                live.update(kept)
        state.total_count.clear()
        state.total_count.update(counts)
        state.all_total_count[:] = total
        state.should_stop, state.should_terminate = self._stop
        self._selected()._consume_from = self._queues

    def put_away(self) -> None:
        self._kept = [
            dict(state.requests),
            set(state.reserved_requests),
            set(state.active_requests),
            set(state.scheduled_requests),
            dict(state.total_count),
            list(state.all_total_count),
        ]
        self._queues = self._selected()._consume_from
        self._stop = state.should_stop, state.should_terminate
        state.should_stop = state.should_terminate = None
        state.reset_state()

    def _selected(self) -> Any:
        return self._app.amqp.queues

    def _pairs(self, *kept: Any) -> Iterable[tuple[Any, Any]]:
        live = (
            state.requests,
            state.reserved_requests,
            state.active_requests,
            state.scheduled_requests,
        )
        return zip(live, kept, strict=True)


class WorkerProcess(Process):
    """One worker, from its start to its end; the next one of its name is another object."""

    def __init__(
        self, deployment: Deployment, name: str, group: WorkerGroup, on_end: Callable[[], None]
    ) -> None:
        super().__init__(deployment.loop, name)
        self.group = group
        self.exit_status: int | None = None
        self._deployment = deployment
        self._on_end = on_end
        self._state = ProcessState(deployment.app, group.queues)
        self._main: greenlet | None = None
        self._waits = False
        self.controller: Any = None
        self._channel: Any = None

    def enter(self) -> None:
        self._state.put_in_force()

    def leave(self) -> None:
        self._state.put_away()

    def run(self) -> None:
        """What ``celery worker`` does, without its command line."""
        self._main = getcurrent()
        deployment = self._deployment
        pool = type(
            "Pool",
            (VirtualPool,),
            {
                "process": self,
                "trace": deployment.trace,
                "service_times": staticmethod(deployment.service_times),
            },
        )
        self.controller = WorkController(
            app=deployment.app,
            hostname=f"celery@{self.name}",
            pool_cls=pool,
            concurrency=self.group.concurrency,
            timer_cls=lambda **_: VirtualTimer(self),
            consumer_cls=deployment.consumer_class,
            use_eventloop=False,
            without_mingle=True,
            without_gossip=True,
            without_heartbeat=True,
            task_events=False,
        )
        self.controller.start()
        self.exit_status = self.controller.exitcode or 0

    def consume(self, consumer: Any, connection: Any, task_consumer: Any, *args: Any) -> None:
        """``Consumer.loop``: what Celery's ``synloop`` does, without waiting for real time."""
        blueprint, qos = args[0], args[2]
        broker = self._deployment.broker
        task_consumer.on_message = consumer.create_task_handler()
        task_consumer.consume()
        channel = task_consumer.channel
        self._channel = channel
        channel.on_credit = self.wake
        consumer.on_ready()
        self._restore_again_and_again(connection)
        try:
            self._take_again_and_again(consumer, blueprint, qos, channel)
        finally:
            broker.stop_waiting(self)

    def _take_again_and_again(self, consumer: Any, blueprint: Any, qos: Any, channel: Any) -> None:
        while blueprint.state == RUN and consumer.connection:
            state.maybe_shutdown()
            if qos.prev != qos.value:
                qos.update()
            consumer.perform_pending_operations()
            if channel.qos.can_consume():
                if self._take(channel):
                    continue
                self._deployment.broker.wait(self)
            self._waits = True
            self.loop.wait()

    def _take(self, channel: Any) -> bool:
        if not channel.active_queues:
            return False
        channel._brpop_start()
        try:
            return bool(channel._brpop_read())
        except Empty:
            return False

    def _restore_again_and_again(self, connection: Any) -> None:
        cycle = connection.transport.cycle
        options = connection.transport_options
        interval = options.get("unacked_restore_interval", self._channel.unacked_restore_interval)

        def restore() -> None:
            if self.controller.consumer.connection is connection:
                try:
                    cycle.maybe_restore_messages()
                except WorkerShutdown as asked:
                    # In the loop of a real worker it stops that.
                    state.should_stop = asked.code
                self.look_around()
            else:
                self.loop.forget(ticker)

        timeout = self._channel.visibility_timeout

        def quiet_until() -> datetime | None:
            oldest = self._deployment.broker.held_since()
            return None if oldest is None else datetime.fromtimestamp(oldest + timeout, UTC)

        ticker = self.loop.every(self, "restore", interval, restore, quiet_until)

    def lose_next_child(self, checkpoints: int) -> None:
        """Kill the pool's child that is at work after so many checkpoints of tasks."""
        if self.controller is not None:
            self.controller.pool.lose_next_child(checkpoints)

    @property
    def holds_messages(self) -> bool:
        """Whether there are messages that it took and has not acknowledged."""
        channel = self._channel
        if channel is None:
            return False
        # kombu forgets what was acknowledged a little later.
        return len(channel.qos._delivered) > len(channel.qos._dirty) or self._runs_tasks

    @property
    def has_consumed(self) -> bool:
        """Whether it has begun to take messages."""
        return self._channel is not None

    @property
    def has_free_slot(self) -> bool:
        """Whether its pool could begin a task at once; also before it has a pool."""
        pool = getattr(self.controller, "pool", None)
        return pool is None or pool.has_free_slot

    @property
    def _runs_tasks(self) -> bool:
        return bool(self.controller is not None and self.controller.pool.running)

    def serves(self, queue: str) -> bool:
        return queue in self._channel.active_queues

    def wake(self) -> None:
        """Let the worker look for messages, at this instant."""
        if self._waits and self._main is not None:
            self._waits = False
            main = self._main
            self.loop.call_at(self.loop.now, lambda: self.loop.resume(self, main))

    def look_around(self) -> None:
        """Wake the worker if it is to stop, or a thread has left its loop something to do.

        A real worker's loop looks every second.
        """
        is_to_stop = state.should_stop is not None or state.should_terminate is not None
        consumer = getattr(self.controller, "consumer", None)
        if is_to_stop or getattr(consumer, "_pending_operations", None):
            self.wake()

    def ended(self, error: BaseException | None) -> None:
        if isinstance(error, SystemExit):
            self.exit_status = error.code if isinstance(error.code, int) else 1
        elif error is not None:
            raise error
        self.alive = False
        self._deployment.trace.emit("exited", worker=self.name, status=self.exit_status)
        self._gone()

    def killed(self) -> None:
        self._deployment.trace.emit("killed", worker=self.name)
        self._gone()

    def _gone(self) -> None:
        self._deployment.broker.stop_waiting(self)
        self._forget_connection()
        self._on_end()

    def _forget_connection(self) -> None:
        """A dead process gives nothing back: kombu would, when its objects are collected."""
        channel = self._channel
        if channel is not None and channel.qos._on_collect is not None:
            channel.qos._on_collect.cancel()

    def exit(self, status: int) -> None:
        """``os._exit`` in this process."""
        self.exit_status = status
        self.kill()
