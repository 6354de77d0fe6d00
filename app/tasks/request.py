"""How a worker's main process sees a task that it gave to its pool."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from billiard.einfo import ExceptionInfo
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery.worker import state
from celery.worker.request import Request
from celery.worker.state import task_ready

from app import trace
from app.domain import personal_data
from app.outbox import PUBLISHED_AT_HEADER
from app.outbox.guard import Delivery
from app.tasks import attempts, outage, recorder, registration
from app.tasks.attempts import Becomes, How, NotRecordedError, RowLockedError


class OutboxRequest(Request):
    """Records the ends of bodies that were ended from outside, and leaves personal data out
    of events.

    Of a killed child Celery would publish a copy with an ETA, or requeue without a bound. The
    message is acknowledged when the end is recorded. Bound to
    ``Task.Request`` (Celery docs, "Custom task classes": "Requests and custom requests").
    """

    _context: Any

    is_being_stopped = False
    """Whether the pool is to end the body: the task was revoked, or the worker stops."""
    hard_limit: float | None = None
    """Seconds; set when the pool is given the task."""
    _in_the_pool: Any = None
    _unrecorded = False
    """Whether the end of the attempt is still to be recorded."""

    def __init_subclass__(cls, **options: Any) -> None:
        # Celery makes a subclass for each task, with methods of its own that call no other
        # (celery/worker/request.py, create_request_cls).
        super().__init_subclass__(**options)
        theirs = cls.__dict__
        if "execute_using_pool" in theirs and "on_success" in theirs:
            _wrap(cls, theirs["execute_using_pool"], theirs["on_success"])

    @property
    def is_over_in_the_pool(self) -> bool:
        """Whether the pool has finished the task, as far as it reports.

        A task that has finished but is still active has lost its slot: its end was never
        reported.
        """
        result = self._in_the_pool
        if result is None:
            return False  # not begun, or a pool that keeps nothing (solo, eventlet)
        future = getattr(result, "f", None)  # threads
        if future is not None:
            return bool(future.done())
        ready = getattr(result, "ready", None)  # prefork, gevent
        return bool(ready is not None and ready())

    def give_up(self) -> None:
        """Requeue a task that has finished in the pool, and whose end was not reported."""
        if self.is_over_in_the_pool:
            self.on_failure(_lost("its end was not reported"))

    def terminate(self, pool: Any, signal: Any = None) -> None:
        self.is_being_stopped = True
        super().terminate(pool, signal)

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        self.is_being_stopped = True
        # Called by a signal handler. What it raised would leave the body that a solo pool
        # runs, which cannot end it otherwise.
        with suppress(NotImplementedError):
            super().cancel(pool, signal, emit_retry)

    def on_failure(
        self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False
    ) -> Any:
        self._in_the_pool = None
        error = getattr(exc_info.exception, "exc", exc_info.exception)
        if isinstance(error, NotRecordedError):
            return self._give_back(error)
        # Any part of Celery may report a dead process in this form.
        if isinstance(error, SystemExit | KeyboardInterrupt):
            if self._already_cancelled or self._already_revoked:  # type: ignore[attr-defined]
                return super().on_failure(
                    exc_info, send_failed_event=send_failed_event, return_ok=return_ok
                )
            exc_info = _lost(attempts.text_of(error))
            error = exc_info.exception.exc
        if isinstance(error, TimeLimitExceeded):
            self._unrecorded = True  # a prefork pool calls on_timeout next
        if not isinstance(error, WorkerLostError):
            return super().on_failure(
                exc_info, send_failed_event=send_failed_event, return_ok=return_ok
            )
        task: Any = self.task
        delivery, text = self._delivery, attempts.text_of(error)
        requeued = attempts.ENDS[How.LOST] is Becomes.REQUEUED
        if requeued and not delivery.from_outbox:
            # Celery retries it ``max_retries`` times, then calls no hook of the task.
            if task.max_retries is not None and delivery.tries >= task.max_retries:
                self._record(partial(task.record_failure, delivery, text))
            return super().on_failure(
                exc_info, send_failed_event=send_failed_event, return_ok=return_ok
            )
        task_ready(self)
        self._record(partial(task.record_end, How.LOST, delivery, text))
        self.acknowledge()
        self.send_event("task-retried" if requeued else "task-failed", exception=text, traceback="")
        return None

    def _give_back(self, error: NotRecordedError) -> None:
        """Give the message back. In an outage this worker takes no other.

        Where only the row is locked, the relay publishes the entry again when it is free. At
        the head of its list the message would be taken again at once, instead of all others.
        """
        task_ready(self)
        is_locked = isinstance(error, RowLockedError)
        if is_locked and self._delivery.from_outbox:
            self.acknowledge()
            return
        found = outage.of_message(self.message)
        if found is not None and not is_locked:
            found.begin(str(error))
        self.reject(requeue=True)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        task: Any = self.task
        if not soft and not state.should_terminate:  # as Celery: a cold shutdown is not an end
            text = attempts.text_of(TimeLimitExceeded(timeout))
            self._record(partial(task.record_end, How.HARD_LIMIT, self._delivery, text))
        # For a hard limit Celery calls the task's on_failure here, without its request.
        self._context.update(ended_outside=not soft)
        task.request_stack.push(self._context)
        try:
            super().on_timeout(soft, timeout)
        finally:
            task.request_stack.pop()

    def acknowledge(self) -> None:
        """Acknowledge the message, unless the end of the attempt is still to be recorded."""
        if not self._unrecorded:
            super().acknowledge()

    def _record(self, act: Callable[[], object]) -> None:
        """Have ``act`` record how the attempt ended, and the message acknowledged after it.

        Where it is not recorded before the worker ends, the message is redelivered.
        """

        def recorded() -> None:
            self._unrecorded = False
            self.acknowledge()

        self._unrecorded = True
        recorder.record(f"{self.task.name}[{self.id}]", act, then=recorded)

    def send_event(self, type: str, **fields: Any) -> None:
        """Send Celery's event, without the personal data that an error's text may quote.

        The event of a start also has the message's queue, trace and time of publication, from
        which a monitor computes how long the task waited.
        """
        if type == "task-started" and PUBLISHED_AT_HEADER in self.request_dict:
            fields["queue"] = self.delivery_info.get("routing_key")
            fields[PUBLISHED_AT_HEADER] = self.request_dict[PUBLISHED_AT_HEADER]
            fields[trace.HEADER] = self.request_dict.get(trace.HEADER)
        for name in ("exception", "traceback"):
            if fields.get(name):
                fields[name] = personal_data.leave_out(str(fields[name]))
        super().send_event(type, **fields)

    @property
    def _delivery(self) -> Delivery:
        return Delivery(
            self.id,
            self.task.name,
            list(self.args),
            dict(self.kwargs),
            from_outbox=PUBLISHED_AT_HEADER in self.request_dict,
            tries=self.request_dict.get("retries") or 0,
        )


def _wrap(cls: Any, execute_using_pool: Any, on_success: Any) -> None:
    def execute(self: Any, pool: Any, **kwargs: Any) -> Any:
        self.time_limits, self.hard_limit = registration.limits_in_force(
            self.time_limits, self.task, pool.options
        )
        self._in_the_pool = execute_using_pool(self, pool, **kwargs)
        return self._in_the_pool

    def succeed(self: Any, outcome: Any, **kwargs: Any) -> Any:
        self._in_the_pool = None  # it refers to this request
        if isinstance(outcome, ExceptionInfo):
            # So a pool reports what is not an Exception (celery/concurrency/base.py,
            # apply_target). Celery's own method fails with it, and the slot is lost.
            return self.on_failure(outcome)
        return on_success(self, outcome, **kwargs)

    cls.execute_using_pool = execute
    cls.on_success = succeed


def _lost(why: str) -> ExceptionInfo:
    try:
        raise WorkerLostError(f"the process of the task ended: {why}")
    except WorkerLostError:
        return ExceptionInfo()
