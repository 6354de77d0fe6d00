"""How a worker's main process sees a task that it gave to its pool."""

from typing import Any

from billiard.exceptions import WorkerLostError
from celery.worker.request import Request
from celery.worker.state import task_ready

from app import trace
from app.domain import personal_data
from app.outbox import PUBLISHED_AT_HEADER
from app.outbox.guard import Delivery


class OutboxRequest(Request):
    """Gives the work of a killed child back to its outbox entry, and keeps people out of events.

    Celery would publish a copy with an ETA, or requeue without a bound. Bound to
    ``Task.Request`` (Celery docs, "Custom task classes": "Requests and custom requests").
    """

    _context: Any

    def on_failure(
        self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False
    ) -> Any:
        error = getattr(exc_info.exception, "exc", exc_info.exception)
        if not isinstance(error, WorkerLostError):
            return super().on_failure(
                exc_info, send_failed_event=send_failed_event, return_ok=return_ok
            )
        task: Any = self.task
        delivery = self._delivery
        if not delivery.from_outbox:
            answer = super().on_failure(
                exc_info, send_failed_event=send_failed_event, return_ok=return_ok
            )
            # Celery retries it so often, then calls no hook of the task.
            if task.max_retries is not None and delivery.tries >= task.max_retries:
                task.bury(delivery, error)
            return answer
        task_ready(self)
        task.worker_lost(delivery, error)
        self.acknowledge()
        self.send_event("task-retried", exception=repr(error), traceback="")
        return None

    def on_timeout(self, soft: bool, timeout: float) -> None:
        # For a hard limit Celery calls the task's on_failure here, without its request.
        self.task.request_stack.push(self._context)
        try:
            super().on_timeout(soft, timeout)
        finally:
            self.task.request_stack.pop()

    def send_event(self, type: str, **fields: Any) -> None:
        """As Celery's, but that what it shows of an error quotes no person's data.

        The start of a task also says when its message was published, in which queue, and
        whose trace it belongs to: who hears the events can so tell how long it waited.
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
