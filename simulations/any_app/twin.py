"""A twin of somebody's app: its names and settings, none of its code, none of its connections."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

from celery import Celery, signals
from celery.utils.dispatch.signal import Signal

from simulations.any_app.service_times import ServiceTimes

# What decides when, where and how a message goes. Not among them: where the broker and the
# results are, and classes of their own for workers, pools and schedulers.
SETTINGS = (
    "accept_content",
    "beat_max_loop_interval",
    "beat_schedule",
    "broker_transport_options",
    "enable_utc",
    "task_acks_late",
    "task_acks_on_failure_or_timeout",
    "task_annotations",
    "task_create_missing_queues",
    "task_default_exchange",
    "task_default_exchange_type",
    "task_default_priority",
    "task_default_queue",
    "task_default_rate_limit",
    "task_default_routing_key",
    "task_inherit_parent_priority",
    "task_queue_max_priority",
    "task_queues",
    "task_reject_on_worker_lost",
    "task_routes",
    "task_serializer",
    "task_soft_time_limit",
    "task_time_limit",
    "timezone",
    "worker_disable_rate_limits",
    "worker_prefetch_multiplier",
)
OPTIONS = (
    "acks_late",
    "default_retry_delay",
    "exchange",
    "expires",
    "max_retries",
    "priority",
    "queue",
    "rate_limit",
    "reject_on_worker_lost",
    "retry_backoff",
    "retry_backoff_max",
    "retry_jitter",
    "retry_kwargs",
    "routing_key",
    "serializer",
    "soft_time_limit",
    "time_limit",
)


class SimulatedError(Exception):
    """A run that failed, as often as the service times say."""


def twin_of(theirs: Celery, times: ServiceTimes, rng: Random) -> Celery:
    """An app with the tasks, routes, limits and schedule of ``theirs``.

    A run sleeps for the task's service time; one that fails is retried as ``autoretry_for``
    has it where the task has that, else as ``raise self.retry()`` does.
    """
    theirs.loader.import_default_modules()
    twin = Celery(f"{theirs.main or 'app'}", set_as_current=False, broker="redis://virtual")
    twin.conf.update({name: theirs.conf[name] for name in SETTINGS}, task_ignore_result=True)
    # A task is shared with every app of the process unless it says otherwise: also with this.
    twin.finalize()
    for name in names_of(twin):
        twin.tasks.unregister(name)
    for name in names_of(theirs):
        _add(twin, name, theirs.tasks[name], times, rng)
    return twin


def names_of(app: Celery) -> set[str]:
    """The app's own tasks."""
    return {name for name in app.tasks if not name.startswith("celery.")}


def _add(twin: Celery, name: str, theirs: Any, times: ServiceTimes, rng: Random) -> None:
    options = {option: getattr(theirs, option) for option in OPTIONS if hasattr(theirs, option)}
    retried_by_itself = bool(getattr(theirs, "autoretry_for", ()))
    if retried_by_itself:
        options["autoretry_for"] = (SimulatedError,)

    def body(task: Any, *_args: Any, **_kwargs: Any) -> None:
        load = times.of(name)
        time.sleep(load.draw(rng))
        if rng.random() < load.failure_rate:
            error = SimulatedError(name)
            if retried_by_itself:
                raise error
            raise task.retry(exc=error)

    add_task: Any = twin.task(name=name, bind=True, shared=False, typing=False, **options)
    add_task(body)


def queues_of(twin: Celery, tasks: set[str]) -> tuple[str, ...]:
    """Every queue that the settings name or that a task or an entry is routed to."""
    named = set((twin.conf.task_queues and [queue.name for queue in twin.conf.task_queues]) or ())
    entries = (twin.conf.beat_schedule or {}).values()
    plain: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in sorted(tasks)]
    plain += [(entry["task"], dict(entry.get("options") or {})) for entry in map(dict, entries)]
    router = twin.amqp.router
    for name, options in plain:
        own = {
            key: value
            for key in ("queue", "exchange", "routing_key")
            if (value := getattr(twin.tasks.get(name), key, None)) is not None
        }
        queue = router.route({**own, **options}, name).get("queue")
        named.add(getattr(queue, "name", queue) or twin.conf.task_default_queue)
    return tuple(sorted(named))


def warnings_of(theirs: Celery, served: tuple[str, ...]) -> list[str]:
    """What the replay does that its real workers would not, or the other way round.

    ``served`` are the queues that the replay's workers take from.
    """
    schedule = (theirs.conf.beat_schedule or {}).items()
    found = [
        f"beat entry {name} names {entry['task']}, which is no task of the app: a worker throws "
        "its messages away"
        for name, entry in sorted((name, dict(entry)) for name, entry in schedule)
        if entry["task"] not in theirs.tasks
    ]
    by_default = theirs.amqp.queues.consume_from
    others = [name for name in served if name not in by_default]
    if others:
        found.append(
            f"the replay's workers take from {', '.join(served)}; a real one takes from "
            f"{', '.join(sorted(by_default))} alone where -Q does not name {', '.join(others)}"
        )
    return found


@contextmanager
def signals_muted() -> Iterator[None]:
    """Call none of the functions that they have connected to Celery's signals."""
    every: list[Any] = [each for each in vars(signals).values() if isinstance(each, Signal)]
    kept = [(each, each.receivers) for each in every]
    for each in every:
        each.receivers = []
        each.sender_receivers_cache.clear()
    try:
        yield
    finally:
        for each, receivers in kept:
            each.receivers = receivers
            each.sender_receivers_cache.clear()
