"""Celery's schedule as beat takes it: each entry read, and refused where it cannot be kept."""

from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from hashlib import sha256
from typing import Any

from celery import Celery
from celery.beat import BeatLazyFunc, ScheduleEntry
from kombu.utils.functional import maybe_evaluate

from app import clock, routing
from app.outbox.schedule import CatchUp, PeriodicEntry
from app.tasks.due import next_due

OPTIONS = ("catch_up", "priority", "queue")
"""The options of an entry that its outbox row can keep."""


class ScheduleError(Exception):
    """An entry of the schedule cannot be kept; the message is one line that names it."""


def check(app: Celery) -> None:
    """Read the whole schedule of ``app``, whose tasks are imported for it.

    Raises ``ScheduleError`` for the first entry that names a task or a queue that does not
    exist, has options that the outbox cannot keep, or is never due.
    """
    app.loader.import_default_modules()
    for name, given in sorted(_given(app).items()):
        try:
            entry = _entry(name, given, app)
            if entry.task not in app.tasks:
                ours = [known for known in app.tasks if not known.startswith("celery.")]
                raise ValueError(_no_such("task", entry.task, ours))
            _try_out(periodic(name, entry, app), entry.schedule)
        except Exception as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise ScheduleError(f"beat entry {name!r}: {reason}") from error


def entries_of(app: Celery) -> dict[str, ScheduleEntry]:
    """The entries of a schedule that ``check`` has let pass, by name."""
    return {name: _entry(name, given, app) for name, given in _given(app).items()}


def _given(app: Celery) -> Mapping[str, Any]:
    given: Mapping[str, Any] = maybe_evaluate(app.conf.beat_schedule)
    return given


def _entry(name: str, given: Any, app: Celery) -> ScheduleEntry:
    if isinstance(given, ScheduleEntry):
        return given
    return ScheduleEntry(**{**given, "name": name, "app": app})


def periodic(name: str, entry: Any, app: Celery) -> PeriodicEntry:
    """What the outbox has to know of a ``ScheduleEntry``.

    Raises ``ValueError`` for options that the outbox cannot keep.
    """
    options = {key: value for key, value in entry.options.items() if value is not None}
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise ValueError(
            f"the outbox keeps no option {unknown[0]!r}, only {', '.join(OPTIONS)}: take it out"
        )
    queue, priority = options.get("queue"), options.get("priority")
    if queue is not None and not routing.is_queue(queue):
        raise ValueError(_no_such("queue", queue, [spec.name for spec in routing.QUEUES]))
    if priority is not None and priority not in range(routing.MOST_URGENT + 1):
        raise ValueError(f"priority {priority!r} is not between 0 and {routing.MOST_URGENT}")
    catch_up = options.get("catch_up", CatchUp.ONCE)
    if catch_up not in [policy.value for policy in CatchUp]:
        raise ValueError(f"catch_up {catch_up!r} is none of {', '.join(CatchUp)}")
    described = f"{entry.schedule!r} {app.conf.timezone} {entry.task}"
    return PeriodicEntry(
        name=name,
        task=entry.task,
        schedule_hash=sha256(described.encode()).hexdigest(),
        next_due=partial(next_due, entry.schedule),
        args=tuple(entry.args or ()),
        kwargs=dict(entry.kwargs or {}),
        catch_up=CatchUp(catch_up),
        queue=queue,
        priority=priority,
    )


def evaluated(entry: PeriodicEntry) -> PeriodicEntry:
    """The entry with what its lazy arguments (``celery.beat.BeatLazyFunc``) are now."""
    return replace(
        entry,
        args=tuple(_value(arg) for arg in entry.args),
        kwargs={name: _value(arg) for name, arg in entry.kwargs.items()},
    )


def _try_out(entry: PeriodicEntry, timetable: Any) -> None:
    try:
        entry.next_due(clock.utcnow())
    except Exception as error:
        raise ValueError(f"its schedule {timetable!r} is never due ({error})") from error


def _value(argument: Any) -> Any:
    return argument() if isinstance(argument, BeatLazyFunc) else argument


def _no_such(what: str, name: object, known: list[str]) -> str:
    similar = get_close_matches(str(name), known, n=1)
    return f"there is no {what} {name!r}" + (f": did you mean {similar[0]!r}?" if similar else "")
