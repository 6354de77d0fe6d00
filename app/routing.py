"""The table of queues: how urgent each is, and which tasks go to it.

Celery's queues and routes, the workers' groups, the docs' table and the load tests are
all made from it.
"""

from dataclasses import dataclass

MOST_URGENT = 9


@dataclass(frozen=True)
class QueueSpec:
    name: str
    urgency: int
    """0 to 9; work of a higher urgency always goes first."""
    module: str
    """The module under ``app.tasks`` whose tasks go to this queue."""
    bulk: bool = False
    """Slow work, which a worker group of its own keeps from starving."""


QUEUES = (
    QueueSpec("bookings", urgency=7, module="bookings"),  # a lesson's state; people act on it
    QueueSpec("email", urgency=5, module="email"),  # somebody waits for it in the inbox
    QueueSpec("notifications", urgency=5, module="notifications"),  # the same, in the app
    QueueSpec("celery", urgency=5, module="health"),  # Celery's default: whatever names no other
    QueueSpec("cache", urgency=4, module="cache", bulk=True),  # stale for minutes, never wrong
    QueueSpec("analytics", urgency=3, module="analytics", bulk=True),  # read the next morning
    QueueSpec("maintenance", urgency=1, module="cleanup", bulk=True),  # nobody notices an hour
)

DEFAULT_QUEUE = "celery"


@dataclass(frozen=True)
class WorkerGroup:
    """Workers that take from the same queues."""

    name: str
    queues: tuple[str, ...]


WORKER_GROUPS = (
    WorkerGroup("celery_worker", tuple(spec.name for spec in QUEUES)),
    # Strict urgency starves slow work where the urgent never ends: these take nothing else.
    WorkerGroup("celery_worker_bulk", tuple(spec.name for spec in QUEUES if spec.bulk)),
)

_BY_MODULE = {spec.module: spec for spec in QUEUES}
_BY_NAME = {spec.name: spec for spec in QUEUES}


def queue_for(task: str) -> QueueSpec:
    """The queue of a task named ``app.tasks.<module>.<function>``; the default for others."""
    package, _, rest = task.partition(".tasks.")
    module = rest.partition(".")[0] if package == "app" else ""
    return _BY_MODULE.get(module, _BY_NAME[DEFAULT_QUEUE])


def is_queue(name: str) -> bool:
    """Whether the table has a queue of this name."""
    return name in _BY_NAME


def wire_priority(urgency: int) -> int:
    """The priority on the wire for an urgency of 0 to 9.

    Turned round, because Redis serves 0 first (Celery docs, "Redis Message Priorities").
    """
    if not 0 <= urgency <= MOST_URGENT:
        raise ValueError(f"urgency {urgency!r} is not between 0 and {MOST_URGENT}")
    return MOST_URGENT - urgency


def urgency_of(priority: int) -> int:
    """The urgency of a message with this priority on the wire."""
    return MOST_URGENT - priority
