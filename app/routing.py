"""The table of queues: how urgent each is, and which modules' tasks go to it.

Celery's queues and routes, the workers' groups and the simulator's idea of what is urgent
are derived from it. What else names a queue is compared with it by a test, which says what
to add.
"""

from dataclasses import dataclass

MOST_URGENT = 9


@dataclass(frozen=True)
class QueueSpec:
    name: str
    urgency: int
    """0 to 9; work of a higher urgency always goes first."""
    bulk: bool = False
    """Slow work, which a worker group of its own keeps from starving."""

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules under ``app.tasks`` whose row names this queue."""
        return tuple(module for module, queue in QUEUE_BY_MODULE.items() if queue == self.name)


QUEUES = (
    QueueSpec("bookings", urgency=7),  # a lesson's state; people act on it
    QueueSpec("email", urgency=5),  # somebody waits for it in the inbox
    QueueSpec("notifications", urgency=5),  # the same, in the app
    QueueSpec("celery", urgency=5),  # Celery's default: whatever names no other
    QueueSpec("cache", urgency=4, bulk=True),  # stale for minutes, never wrong
    QueueSpec("analytics", urgency=3, bulk=True),  # read the next morning
    QueueSpec("maintenance", urgency=1, bulk=True),  # nobody notices an hour
)

QUEUE_NAMES = tuple(spec.name for spec in QUEUES)

DEFAULT_QUEUE = "celery"

# A module under app.tasks that has no row here shares the default queue.
QUEUE_BY_MODULE = {
    "analytics": "analytics",
    "bookings": "bookings",
    "cache": "cache",
    "cleanup": "maintenance",
    "email": "email",
    "health": "celery",
    "notifications": "notifications",
}


@dataclass(frozen=True)
class WorkerGroup:
    """Workers that take from the same queues."""

    name: str
    queues: tuple[str, ...]


WORKER_GROUPS = (
    WorkerGroup("celery_worker", QUEUE_NAMES),
    # Strict urgency starves slow work where the urgent never ends: these take nothing else.
    WorkerGroup("celery_worker_bulk", tuple(spec.name for spec in QUEUES if spec.bulk)),
)

_BY_NAME = {spec.name: spec for spec in QUEUES}


def queue_for(task: str) -> QueueSpec:
    """The queue of a task named ``app.tasks.<module>.<function>``; the default for others."""
    package, _, rest = task.partition(".tasks.")
    module = rest.partition(".")[0] if package == "app" else ""
    return _BY_NAME[QUEUE_BY_MODULE.get(module, DEFAULT_QUEUE)]


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
