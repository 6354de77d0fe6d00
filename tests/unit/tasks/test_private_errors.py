"""What a database says of a refused row holds no word of the row, wherever it is kept."""

from celery import states

from app import db
from app.tasks import BaseTask
from tests.builders import a_student
from tests.tracing import deliver
from tests.unit.tasks.conftest import Bench, entry

ADDRESS = "marked@private.example"


def insert_twice(self: BaseTask) -> None:
    with self.transaction() as session:
        for _ in range(2):
            a_student(session, email=ADDRESS)


def test_no_dead_letter_has_the_address_that_the_database_refused(bench: Bench) -> None:
    task = bench.task(insert_twice)
    message = bench.enqueue(task)
    assert deliver(task, message).state == states.FAILURE
    (error,) = entry(message.id).errors
    assert "IntegrityError" in error["traceback"]
    assert ADDRESS not in str(error)


def test_no_planned_retry_has_the_address_that_the_database_refused(bench: Bench) -> None:
    def body(self: BaseTask) -> None:
        try:
            with db.transaction() as session:
                for _ in range(2):
                    a_student(session, email=ADDRESS)
        except Exception as error:
            raise self.retry(exc=error) from error

    task = bench.task(body)
    message = bench.enqueue(task)
    assert deliver(task, message).state == states.RETRY
    (error,) = entry(message.id).errors
    assert "IntegrityError" in error["error"]
    assert ADDRESS not in str(error)
