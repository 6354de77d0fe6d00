"""Start the task of a dead prefork child again only if the child had not begun it."""

from typing import Any

from celery import Celery, bootsteps
from celery.concurrency import prefork
from celery.worker.components import Pool


def install(app: Celery) -> None:
    app.steps["worker"].add(ReadsTheDead)


class ReadsTheDead(bootsteps.StartStopStep):
    """Makes a prefork pool read what a dead child reported before it decides about its task."""

    requires = (Pool,)

    def start(self, worker: Any) -> None:
        if isinstance(worker.pool, prefork.TaskPool):
            pool: Any = worker.pool
            read_what_the_dead_reported(pool._pool)


def read_what_the_dead_reported(pool: Any) -> None:
    """Read the reports of a dead child before ``pool`` puts its task back.

    The pool looks at its children one after another and reads the reports of those that have
    exited. A child that dies after its turn is dead when the pool goes through the tasks, and
    its reports are unread. Celery 5.7 takes its task for one that never began, and starts it
    again, even if the child had returned a result (``on_partial_read`` in
    celery/concurrency/asynpool.py).

    Args:
        pool: the ``AsynPool`` of a prefork pool that has started.
    """
    theirs = pool.on_job_process_down

    def on_job_process_down(job: Any, pid_gone: int) -> None:
        for process in {job._write_to, job._scheduled_for} - {None}:
            if not process._is_alive():
                pool.process_flush_queues(process)
        theirs(job, pid_gone)

    pool.on_job_process_down = on_job_process_down
