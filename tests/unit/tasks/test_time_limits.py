"""What a worker says at its start of the time limits that its pool ignores."""

import pytest
from celery import Celery, _state

from app.tasks import time_limits


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Celery:
    # Without the tasks that other tests have shared with every app of this process.
    monkeypatch.setattr(_state, "_on_app_finalizers", set())
    made = Celery("limits", broker="memory://", set_as_current=False)
    made.conf.update(task_soft_time_limit=540, task_time_limit=600)
    return made


def test_a_pool_is_called_as_its_option_is() -> None:
    classes = ("prefork", "thread", "gevent", "eventlet", "solo")
    assert [time_limits.pool_name(f"celery.concurrency.{name}:TaskPool") for name in classes] == [
        "prefork",
        "threads",
        "gevent",
        "eventlet",
        "solo",
    ]


def test_prefork_ignores_nothing(app: Celery) -> None:
    assert time_limits.warning(app, "prefork") is None


def test_the_warning_names_the_pool_and_the_limits_of_every_task(app: Celery) -> None:
    assert time_limits.warning(app, "threads") == (
        "pool threads: time limits are not enforced (soft 540 s, hard 600 s). "
        "A task that hangs keeps its slot. Use --pool=prefork where that matters"
    )
    gevent = time_limits.warning(app, "gevent")
    assert gevent is not None
    assert "pool gevent: soft time limits are not enforced (soft 540 s)." in gevent


def test_tasks_with_limits_of_their_own_are_named_as_far_as_there_is_room(app: Celery) -> None:
    app.conf.update(task_soft_time_limit=None, task_time_limit=None)
    assert time_limits.warning(app, "solo") is None

    def body() -> None: ...

    for number in range(5):
        app.task(name=f"task-{number}", shared=False, time_limit=3)(body)
    warning = time_limits.warning(app, "solo")
    assert warning is not None
    assert "(those of task-0, task-1, task-2 and 2 more)" in warning
    assert time_limits.warning(app, "gevent") is None, "it enforces these"
