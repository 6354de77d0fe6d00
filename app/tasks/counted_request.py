"""How a worker's main process counts the ends of tasks."""

from time import monotonic
from typing import Any

from billiard.einfo import ExceptionWithTraceback  # type: ignore[attr-defined]
from billiard.exceptions import Terminated, WorkerLostError
from celery.exceptions import Ignore, Retry
from celery.utils.saferepr import saferepr

from app.outbox import PUBLISHED_AT_HEADER
from app.tasks import context, metrics
from app.tasks.base import DEAD, SKIPPED
from app.tasks.metrics import TaskState
from app.tasks.request import OutboxRequest

# A worker's main process is given a result's text.
_SPECIAL_RESULTS = {
    saferepr(SKIPPED): TaskState.SKIPPED,
    saferepr(DEAD): TaskState.DEAD,
}

_SPECIAL_ERRORS: tuple[tuple[tuple[type[BaseException], ...], TaskState], ...] = (
    ((Retry,), TaskState.RETRIED),
    ((Ignore,), TaskState.IGNORED),
    ((Terminated,), TaskState.REVOKED),
    ((WorkerLostError, SystemExit, KeyboardInterrupt), TaskState.LOST),
)


def _state_of(error: BaseException) -> TaskState:
    for kinds, state in _SPECIAL_ERRORS:
        if isinstance(error, kinds):
            return state
    return TaskState.FAILED


class CountedRequest(OutboxRequest):
    """Counts each run once, in every pool, and names the task in the lines about it."""

    _accepted_at: float | None = None
    _counted = False

    def __init_subclass__(cls, **options: Any) -> None:
        # Celery makes a subclass for each task, with an ``on_success`` of its own that
        # calls no other (celery/worker/request.py, create_request_cls).
        super().__init_subclass__(**options)
        theirs = cls.__dict__.get("on_success")
        if theirs is None:
            return

        def on_success(self: Any, outcome: Any, **kwargs: Any) -> Any:
            if isinstance(outcome, tuple) and not outcome[0]:
                self._ended(_SPECIAL_RESULTS.get(outcome[1], TaskState.SUCCEEDED))
            with context.about(self):
                return theirs(self, outcome, **kwargs)

        cls.on_success = on_success  # type: ignore[assignment, method-assign]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        context.received(self)

    def on_accepted(self, pid: Any, time_accepted: float) -> None:
        self._accepted_at = time_accepted
        message = self.request_dict
        metrics.started(self.task.name, self._queue, message.get(PUBLISHED_AT_HEADER))
        with context.about(self):
            super().on_accepted(pid, time_accepted)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        if not soft:
            self._ended(TaskState.FAILED)
        with context.about(self):
            super().on_timeout(soft, timeout)

    def on_failure(
        self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False
    ) -> Any:
        error = exc_info.exception
        if isinstance(error, ExceptionWithTraceback):  # in pools that pickle nothing
            error = error.exc
        if isinstance(error, Retry):
            metrics.retried(self.task.name, error.exc)
        self._ended(_state_of(error))
        with context.about(self):
            return super().on_failure(
                exc_info, send_failed_event=send_failed_event, return_ok=return_ok
            )

    def _announce_revoked(self, *args: Any, **kwargs: Any) -> Any:
        self._ended(TaskState.REVOKED)
        return super()._announce_revoked(*args, **kwargs)  # type: ignore[misc]

    @property
    def _queue(self) -> object:
        return self.delivery_info.get("routing_key")

    def _ended(self, state: TaskState) -> None:
        # Celery reports a hard time limit twice, as a time-out and as a failure.
        if self._counted:
            return
        self._counted = True
        seconds = None if self._accepted_at is None else monotonic() - self._accepted_at
        metrics.ended(self.task.name, self._queue, state, seconds)
