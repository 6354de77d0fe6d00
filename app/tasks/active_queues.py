"""Which worker takes from which queue."""

from celery import Celery


def queues_by_worker(app: Celery, *, timeout: float) -> dict[str, frozenset[str]]:
    """What each worker takes from that answers within ``timeout`` seconds, sorted by name.

    A queue that is paused is not among them. Raises the errors of kombu and redis-py where
    Redis does not answer.
    """
    answers = app.control.inspect(timeout=timeout).active_queues() or {}
    return {
        worker: frozenset(queue["name"] for queue in queues)
        for worker, queues in sorted(answers.items())
    }
