"""Which worker takes from which queue."""

from collections import defaultdict
from collections.abc import Mapping
from itertools import chain
from operator import itemgetter

from celery import Celery


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
