"""What a type checker knows of a task. Checked by mypy (``tox -e types``), never run.

A call that must be refused is marked with the error it makes: where it makes none, mypy
reports the mark as unused.
"""

from typing import Any, assert_type

from celery import Celery
from celery.result import AsyncResult
from sqlalchemy.orm import Session

from app.tasks import BaseTask, celery_app
from app.tasks.email import deliver, send_booking_confirmation
from app.tasks.health import health_check


def calls_of_a_task() -> None:
    send_booking_confirmation.delay(1)
    send_booking_confirmation.delay(booking_id=1)
    send_booking_confirmation.delay("x")  # type: ignore[arg-type]
    send_booking_confirmation.delay()  # type: ignore[call-arg]
    send_booking_confirmation.delay(1, 2)  # type: ignore[call-arg]
    send_booking_confirmation.delay(booking=1)  # type: ignore[call-arg]

    health_check.delay()
    health_check.delay(1)  # type: ignore[call-arg]

    deliver.delay([1, 2], include_failed=True)
    deliver.delay(["x"])  # type: ignore[list-item]


def direct_calls_and_signatures() -> None:
    assert_type(send_booking_confirmation(1), dict[str, Any])
    send_booking_confirmation("x")  # type: ignore[arg-type]
    send_booking_confirmation.si(1)
    send_booking_confirmation.si("x")  # type: ignore[arg-type]


def results() -> None:
    assert_type(send_booking_confirmation.delay(1), AsyncResult[dict[str, Any]])
    assert_type(send_booking_confirmation.apply_async((1,)), AsyncResult[dict[str, Any]])


@celery_app.task(base=BaseTask, name="app.tasks.module.task_name", bind=True, max_retries=3)
def as_in_the_readme(self: BaseTask, arg1: int, arg2: str) -> dict[str, Any]:
    try:
        with self.transaction() as session:
            assert_type(session, Session)
        return {"status": "success", "result": arg1, "words": arg2}
    except Exception as exc:
        raise self.retry(exc=exc, countdown=60 * (2**self.request.retries)) from exc


def calls_of_the_readmes_task() -> None:
    as_in_the_readme.delay(1, "x")
    as_in_the_readme.delay("x", 1)  # type: ignore[arg-type]
    assert_type(as_in_the_readme.max_retries, int | None)


@celery_app.task(base=BaseTask, name="app.tasks.module.unbound")
def unbound(seconds: float) -> str:
    return f"{seconds} s"


def calls_of_an_unbound_task() -> None:
    assert_type(unbound(1.5), str)
    unbound.delay("x")  # type: ignore[arg-type]


def takes_any_task(task: BaseTask) -> None:
    with task.transaction():
        pass


def uses_of_the_app() -> None:
    takes_any_task(send_booking_confirmation)
    takes_any_task(unbound)
    app: Celery = celery_app
    app.send_task("app.tasks.health.health_check")
