import pytest

from app.routing import QUEUES, urgency_of
from app.tasks import celery_app
from loadtests import _work
from loadtests._work import Call

CALLS = {
    call
    for value in vars(_work).values()
    for call in (value if isinstance(value, tuple) else (value,))
    if isinstance(call, Call)
}


def test_a_load_test_has_work_for_every_queue() -> None:
    missing = sorted({spec.name for spec in QUEUES} - {call.queue for call in CALLS})
    assert missing == [], f"add a Call of a task of {missing} to loadtests/_work.py"


@pytest.mark.parametrize("call", sorted(CALLS, key=str), ids=lambda call: call.task)
def test_every_call_is_of_a_task_that_takes_its_arguments(call: Call) -> None:
    celery_app.loader.import_default_modules()
    task = celery_app.tasks[call.task]
    task.__header__(*call.args)


def test_a_message_has_the_urgency_of_its_queue_or_its_own() -> None:
    assert [urgency_of(call.priority) for call in _work.BOOKING] == [7, 5, 5]
    (reset,) = _work.PASSWORD_RESET
    assert (reset.queue, urgency_of(reset.priority)) == ("email", 8)
