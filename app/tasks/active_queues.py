"""What the workers that answer say of themselves: their queues, and their pools."""

from collections import defaultdict
from collections.abc import Mapping
from itertools import chain
from operator import itemgetter

from celery import Celery

from app.tasks.time_limits import pool_name


def queues_by_worker(app: Celery, *, timeout: float) -> Mapping[str, list[frozenset[str]]]:
    """For each name of a worker that answers within ``timeout`` seconds: what it takes from.

    A list, for several workers may share a name, where nobody gave them their own; Celery's
    ``inspect`` then tells of one of them. A queue that is paused is not among the queues.
    Raises the errors of kombu and redis-py where Redis does not answer.
    """
    replies = app.control.broadcast("active_queues", reply=True, timeout=timeout) or []
    found = defaultdict(list)
    for worker, queues in sorted(chain.from_iterable(map(dict.items, replies)), key=itemgetter(0)):
        found[worker].append(frozenset(queue["name"] for queue in queues))
    return found


def pools_of_workers(app: Celery, *, timeout: float, most: int) -> list[tuple[str, str]]:
    """The name and the pool of each worker that answers within ``timeout`` seconds.

    Returns as soon as ``most`` have answered. Raises as ``queues_by_worker`` does.
    """
    replies = app.control.broadcast("stats", reply=True, timeout=timeout, limit=most) or []
    answers = chain.from_iterable(map(dict.items, replies))
    return sorted((worker, pool_name(stats["pool"]["implementation"])) for worker, stats in answers)


def outages_of_workers(app: Celery, *, timeout: float, most: int) -> list[tuple[str, float, str]]:
    """Each worker that cannot reach the database, for how many seconds, and the reason.

    Returns as soon as ``most`` have answered. Raises as ``queues_by_worker`` does.
    """
    replies = app.control.broadcast("outage", reply=True, timeout=timeout, limit=most) or []
    answers = chain.from_iterable(map(dict.items, replies))
    # One of an older version does not know the question.
    return sorted(
        (worker, told["seconds"], told["reason"]) for worker, told in answers if told.get("reason")
    )


def pids_of(app: Celery, worker: str, *, timeout: float) -> list[int]:
    """The process of each worker of this name that answers within ``timeout`` seconds.

    Returns as soon as two have answered. Raises as ``queues_by_worker`` does.
    """
    replies = app.control.broadcast(
        "stats", destination=[worker], reply=True, timeout=timeout, limit=2
    )
    return [stats["pid"] for reply in replies or [] for stats in reply.values()]


def shared_name(worker: str, number: int) -> str:
    """The message about several workers with one name."""
    return f"{number} workers are called {worker}: give each a name of its own with -n"
