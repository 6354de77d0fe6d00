"""A worker's pool on virtual time: slots that are busy for as long as a task takes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from billiard.einfo import ExceptionInfo
from billiard.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded, WorkerLostError
from celery.concurrency.base import BasePool
from celery.exceptions import Ignore, Reject, Retry
from greenlet import greenlet

from simulations.engine.loop import Event
from simulations.engine.process import Killed, Process
from simulations.engine.trace import Trace


@dataclass(frozen=True)
class ServiceTime:
    """How long a run takes beside what its body sleeps: seconds before the body and after."""

    before: float = 0.0
    after: float = 0.0


STOP_SECONDS = 0.1
"""A pool that stops looks this often for tasks that still run."""
PID = 1
"""Of every child: nobody signals one."""

ServiceTimes = Callable[[str], ServiceTime]
"""Asked at each run, with the task's name."""


@dataclass
class Job:
    """A task in a slot, or on its way to one."""

    target: Callable[..., Any]
    args: Any
    kwargs: Any
    options: dict[str, Any]
    task: str
    id: str
    runner: greenlet | None = None
    done: bool = False
    limits: tuple[Event, ...] = ()


class VirtualPool(BasePool):
    """Runs each task in a greenlet of the worker's process, with its real time limits."""

    signal_safe = False

    process: Process
    trace: Trace
    service_times: ServiceTimes

    def on_start(self) -> None:
        self._free = int(self.limit or 1)
        self._queue: deque[Job] = deque()
        self.running: dict[str, Job] = {}
        self._strike_after: int | None = None

    @property
    def has_free_slot(self) -> bool:
        return self._free > 0

    def on_apply(self, target: Any, args: Any = (), kwargs: Any = None, **options: Any) -> None:
        name, task_id = args[0], args[1]
        job = Job(target, args, kwargs or {}, options, name, task_id)
        if self._free:
            self._begin(job)
        else:
            self._queue.append(job)

    def on_stop(self) -> None:
        """Wait until all that the pool was given has ended, as at a warm shutdown."""
        while self.running or self._queue:
            self.process.loop.nap(STOP_SECONDS)

    def _begin(self, job: Job) -> None:
        self._free -= 1
        self.running[job.id] = job
        job.runner = self.process.spawn(lambda: self._run(job))
        if self._strike_after is not None:
            after, self._strike_after = self._strike_after, None
            self.process.end_greenlet_after(job.runner, after, lambda: self._lose_child(job))

    def _run(self, job: Job) -> None:
        loop = self.process.loop
        self.trace.emit("started", task=job.task, id=job.id, worker=self.process.name)
        job.options["accept_callback"](PID, loop.now.timestamp())
        times = self.service_times(job.task)
        soft, hard = job.options.get("soft_timeout"), job.options.get("timeout")
        limits = []
        if soft:
            limits.append(loop.call_later(soft, lambda: self._soft_limit(job, soft)))
        if hard:
            limits.append(loop.call_later(hard, lambda: self._hard_limit(job, hard)))
        job.limits = tuple(limits)
        try:
            if times.before:
                loop.nap(times.before)
            outcome = job.target(*job.args, **job.kwargs)
            if times.after:
                loop.nap(times.after)
        except Killed:
            raise
        except SoftTimeLimitExceeded:
            # Struck outside the body: prefork's child would tell it as a failure.
            self._end(job, "failed", lambda: job.options["error_callback"](ExceptionInfo()))
        except (SystemExit, KeyboardInterrupt) as error:
            lost = _info(WorkerLostError(repr(error)))
            self._end(job, "lost", lambda: job.options["error_callback"](lost))
        else:
            self._end(job, _state(outcome), lambda: job.options["callback"](outcome))

    def _end(self, job: Job, state: str, tell: Callable[[], Any]) -> None:
        if job.done:
            return
        job.done = True
        for limit in job.limits:
            limit.cancelled = True
        self.running.pop(job.id, None)
        if job.runner is not None and (left := self.process.spared(job.runner)) is not None:
            # It was over too soon: the kill is meant for whoever is at work then.
            self._strike_after = left
        self.trace.emit(state, task=job.task, id=job.id, worker=self.process.name)
        self._free += 1
        tell()
        if self._queue and self._free:
            self._begin(self._queue.popleft())

    def lose_next_child(self, checkpoints: int) -> None:
        """SIGKILL the child that is at work after so many checkpoints of tasks."""
        self._strike_after = checkpoints

    def _lose_child(self, job: Job) -> None:
        lost = _info(WorkerLostError("Worker exited prematurely: signal 9 (SIGKILL)."))
        self.process.spawn(
            lambda: self._end(job, "lost", lambda: job.options["error_callback"](lost))
        )

    def _soft_limit(self, job: Job, seconds: float) -> None:
        if job.done or not self.process.alive or job.runner is None:
            return
        runner = job.runner
        self.process.spawn(lambda: job.options["timeout_callback"](True, seconds))
        self.process.loop.resume(self.process, runner, SoftTimeLimitExceeded(seconds))

    def _hard_limit(self, job: Job, seconds: float) -> None:
        if job.done or not self.process.alive:
            return
        self._kill_runner(job)

        def tell() -> None:
            # As billiard does (Pool.on_hard_timeout): the result first, then the time-out.
            job.options["error_callback"](_info(TimeLimitExceeded(seconds)))
            job.options["timeout_callback"](False, seconds)

        self.process.spawn(lambda: self._end(job, "failed", tell))

    def _kill_runner(self, job: Job) -> None:
        if job.runner:
            self.process.doom(job.runner)
            self.process.loop.resume(self.process, job.runner, Killed())


def _state(outcome: Any) -> str:
    failed, value, _ = outcome
    if not failed:
        return "succeeded"
    error = value.exception
    error = getattr(error, "exc", error) if not isinstance(error, Retry) else error
    if isinstance(error, Retry):
        return "retried"
    return "ignored" if isinstance(error, Ignore | Reject) else "failed"


def _info(error: Exception) -> ExceptionInfo:
    try:
        raise error
    except type(error):
        return ExceptionInfo()
