"""Celery's configuration: data, each value with its reason."""

from dataclasses import dataclass
from typing import Any

from kombu import Queue

from app.adapters.redis_connection import sentinel_options, tls_options
from app.outbox.schedule import CatchUp
from app.routing import DEFAULT_QUEUE, MOST_URGENT, QUEUES, queue_for, wire_priority
from app.settings import Settings
from app.tasks.schedules import crontab

# A module's tasks go to its queue in app/routing.py; without a row there, to the default one.
TASK_MODULES = (
    "analytics",
    "bookings",
    "cache",
    "cleanup",
    "email",
    "health",
    "notifications",
)


@dataclass(frozen=True)
class Periodic:
    """A row of the schedule's table."""

    name: str
    task: str
    schedule: crontab
    catch_up: CatchUp
    """What becomes of due instants that no beat saw; with the reason for it."""


BEAT_ENTRIES = (
    Periodic(
        "session-cleanup",
        "app.tasks.cleanup.delete_expired_sessions",
        crontab(minute=0),
        CatchUp.ONCE,  # one run deletes all that has expired meanwhile
    ),
    Periodic(
        "booking-reminders",
        "app.tasks.bookings.send_due_reminders",
        crontab(minute="*/30"),
        CatchUp.ONCE,  # one run plans every reminder that is still of use
    ),
    Periodic(
        "daily-analytics",
        "app.tasks.analytics.generate_daily",
        crontab(hour=2, minute=0),
        CatchUp.EACH,  # each local day has a row of its own
    ),
    Periodic(
        "notification-cleanup",
        "app.tasks.cleanup.delete_old_notifications",
        crontab(hour=3, minute=0),
        CatchUp.ONCE,  # one run deletes all that is old by now
    ),
    Periodic(
        "no-show-check",
        "app.tasks.bookings.mark_no_shows",
        crontab(minute="*/15"),
        CatchUp.ONCE,  # one run looks at every lesson that is over
    ),
    Periodic(
        "availability-cache",
        "app.tasks.cache.update_availability",
        crontab(minute="*/5"),
        CatchUp.ONCE,  # one run refreshes all that has changed meanwhile
    ),
    Periodic(
        "health-check",
        "app.tasks.health.health_check",
        crontab(),
        CatchUp.SKIP,  # it sees how things are now, not how they were
    ),
)

# As Celery takes it; somebody's own entries, written in this form, are caught up once.
BEAT_SCHEDULE = {
    entry.name: {
        "task": entry.task,
        "schedule": entry.schedule,
        "options": {"catch_up": entry.catch_up.value},
    }
    for entry in BEAT_ENTRIES
}


def route(name: str, *_args: object, **_options: object) -> dict[str, Any]:
    """A task's queue and wire priority (Celery docs, "Routers")."""
    spec = queue_for(name)
    return {"queue": spec.name, "priority": wire_priority(spec.urgency)}


def config(settings: Settings) -> dict[str, Any]:
    """Everything that differs from Celery's defaults. Durations are in seconds."""
    broker = settings.broker
    tls = tls_options(settings) if broker.tls else None
    return {
        "broker_url": broker.for_celery(),
        "broker_use_ssl": tls,
        "redis_backend_use_ssl": tls,
        # A worker that starts before Redis waits for it, as one that loses it does.
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_transport_options": transport_options(settings),
        "result_backend": broker.for_celery(),
        "result_backend_transport_options": sentinel_options(broker, settings),
        # Results are for a person who looks now; what happened is in the tables.
        "result_expires": 3600,
        # Without these a hung Redis hangs the worker's children.
        "redis_socket_timeout": 10.0,
        "redis_socket_connect_timeout": 5.0,
        # Only data crosses the broker: unpickling would run whatever Redis holds.
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "result_accept_content": ["json"],
        "enable_utc": True,
        "timezone": settings.celery_timezone,
        "include": [f"app.tasks.{module}" for module in TASK_MODULES],
        "task_queues": [Queue(spec.name, routing_key=spec.name) for spec in QUEUES],
        "task_default_queue": DEFAULT_QUEUE,
        "task_routes": (route,),
        # A mistyped -Q or queue= is an error, not a new queue that nobody reads.
        "task_create_missing_queues": False,
        "worker_consumer": "app.tasks.consumer:OutboxConsumer",
        # The message stays in Redis until the task has ended.
        "task_acks_late": True,
        # A killed child's outbox task goes back to its entry (request.py); a task without
        # an entry is retried by Celery, as often as its max_retries. Requeueing instead
        # (task_reject_on_worker_lost) has no bound.
        "task_retry_on_worker_lost": True,
        "task_reject_on_worker_lost": False,
        # Nothing urgent waits behind a message that a busy worker has already taken.
        "worker_prefetch_multiplier": 1,
        "task_soft_time_limit": settings.task_soft_time_limit_seconds,
        "task_time_limit": settings.task_time_limit_seconds,
        "task_track_started": True,
        # Flower shows nothing without them.
        "worker_send_task_events": True,
        # The lease keeps the messages of a worker that lost its connection.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # A child that imports on a busy machine is slow, not dead.
        "worker_proc_alive_timeout": 60.0,
        "beat_scheduler": "app.tasks.scheduler:OutboxScheduler",
        "beat_max_loop_interval": settings.pump_interval_seconds,
        "beat_schedule": BEAT_SCHEDULE,
    }


def transport_options(settings: Settings) -> dict[str, Any]:
    """kombu's options for Redis. Durations are in seconds."""
    return {
        "visibility_timeout": settings.visibility_timeout_seconds,
        # Look for expired leases every second; by default it is every hundred.
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        # The mutex around that look outlives a killed worker by this; by default 300 s, in
        # which no dead worker's tasks come back. A look that takes longer is repeated by
        # another worker, which is harmless: each message is given back in a transaction.
        "unacked_mutex_expire": 5,
        # One list for each urgency. By default there are four.
        "priority_steps": list(range(MOST_URGENT + 1)),
        # Within an urgency the queues take turns; "priority" would starve the second.
        "queue_order_strategy": "round_robin",
        # Longer than BRPOP's second, shorter than anybody's patience.
        "socket_timeout": 10.0,
        "socket_connect_timeout": 5.0,
        "socket_keepalive": True,
        # Green pools acknowledge from many greenlets; kombu's 10 connections lose acks.
        "max_connections": 1000,
        **sentinel_options(settings.broker, settings),
    }
