"""A call that no registered task can take is refused where it is planned."""

import sys
from collections.abc import Callable
from functools import partial, wraps
from types import ModuleType
from typing import Any

import pytest
from celery import Celery
from sqlalchemy import Engine, func, select

from app import db, outbox
from app.models import OutboxEntry
from app.tasks import registry

CONFIRM = "app.tasks.email.send_booking_confirmation"


def enqueue(task: str, *args: Any, **options: Any) -> None:
    with db.transaction() as session:
        outbox.enqueue(session, task, *args, **options)


def planned() -> int:
    with db.reading() as session:
        return session.scalar(select(func.count()).select_from(OutboxEntry)) or 0


def test_a_misspelt_task_is_refused_with_the_one_that_was_meant(database: Engine) -> None:
    with pytest.raises(ValueError, match=f"there is no task .* did you mean '{CONFIRM}'"):
        enqueue(CONFIRM.replace("confirmation", "confirmaton"), 42)
    assert planned() == 0


def test_arguments_that_the_task_cannot_take_are_refused(database: Engine) -> None:
    for wrong in ((), (1, 2)):
        with pytest.raises(
            TypeError, match=rf"{CONFIRM}\(booking_id\) does not take these arguments: "
        ):
            enqueue(CONFIRM, *wrong)
    assert planned() == 0
    enqueue(CONFIRM, 42)
    assert planned() == 1


def test_another_services_task_is_planned_unchecked(database: Engine) -> None:
    enqueue("billing.charge", 1, 2, unchecked=True)
    assert planned() == 1


def test_a_process_without_the_registry_checks_nothing(database: Engine) -> None:
    """A web process that has imported ``app.outbox`` alone."""
    attached = outbox.check_calls(None)
    try:
        enqueue("app.tasks.email.no_such_task")
    finally:
        outbox.check_calls(attached)
    assert planned() == 1


@pytest.fixture
def app() -> Celery:
    return Celery("registry", broker="memory://", set_as_current=False)


def plain(a: int, b: int = 2) -> None: ...


def any_number(*args: int) -> None: ...


def keyword_only(a: int, *, b: int) -> None: ...


def traced(body: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(body)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return body(*args[:1], **kwargs)

    return wrapper


def bound(self: Any, a: int) -> None: ...


@pytest.mark.parametrize(
    ("body", "args", "kwargs", "fits"),
    [
        (plain, (), {}, False),
        (plain, (1,), {}, True),
        (plain, (1, 2), {}, True),
        (plain, (1, 2, 3), {}, False),
        (plain, (1,), {"b": 2}, True),
        (plain, (1,), {"a": 2}, False),
        (plain, (1,), {"c": 2}, False),
        (any_number, (1, 2, 3, 4), {}, True),
        (keyword_only, (1,), {}, False),
        (keyword_only, (1,), {"b": 2}, True),
        # What a decorator accepts counts, not what it passes on.
        (traced(plain), (1, 2, 3), {}, True),
    ],
)
def test_a_call_is_compared_with_the_tasks_signature(
    app: Celery, body: Callable[..., Any], args: Any, kwargs: Any, fits: bool
) -> None:
    app.task(shared=False, name="it")(body)
    if fits:
        registry.check_call(app, "it", args, kwargs)
        return
    with pytest.raises(TypeError, match=r"^it\(a, .*\) does not take these arguments: "):
        registry.check_call(app, "it", args, kwargs)


def test_a_bound_tasks_self_is_not_counted(app: Celery) -> None:
    app.task(shared=False, name="it", bind=True, autoretry_for=(ValueError,))(bound)
    registry.check_call(app, "it", (1,))
    with pytest.raises(
        TypeError, match=r"^it\(a\) does not take these arguments: too many positional"
    ):
        registry.check_call(app, "it", (1, 2))


def test_a_task_that_accepts_any_call_is_asked_nothing(app: Celery) -> None:
    app.task(shared=False, name="it", typing=False)(plain)
    registry.check_call(app, "it", (1, 2, 3))


def test_a_task_that_is_registered_later_is_found(app: Celery) -> None:
    with pytest.raises(ValueError, match="there is no task 'late'"):
        registry.check_call(app, "late", ())
    app.task(shared=False, name="late")(any_number)
    registry.check_call(app, "late", ())


def test_no_name_is_refused_before_all_modules_of_tasks_are_imported(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And none is imported for the check."""
    app.conf.include = ["late_tasks"]
    check = partial(registry.check_call, app, "some.task", ())
    check()
    monkeypatch.setitem(sys.modules, "late_tasks", ModuleType("late_tasks"))
    with pytest.raises(ValueError, match="there is no task"):
        check()
