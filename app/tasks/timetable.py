"""Celery's schedule as beat takes it: each entry read, and refused where it cannot be kept."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial
from hashlib import sha256
from typing import Any

from celery import Celery, schedules
from celery.beat import BeatLazyFunc, ScheduleEntry
from kombu.utils.functional import maybe_evaluate

from app import clock, routing
from app.domain.errors import no_such
from app.outbox.schedule import CatchUp, PeriodicEntry
from app.settings import load_settings
from app.tasks import registry
from app.tasks.due import is_interval, next_due
from app.tasks.schedules import crontab

OPTIONS = ("catch_up", "priority", "queue")
"""The options of an entry that its outbox row can keep."""
TRIED = 5
"""Due instants that are looked at before beat starts, to see that the schedule moves."""
MOST_TEXT = 1000
"""Characters of a description: a custom schedule's repr may be long."""
CELERYS = (schedules.schedule, schedules.crontab, schedules.solar)


class ScheduleError(Exception):
    """An entry of the schedule cannot be kept; the message is one line that names it."""


def check(app: Celery) -> None:
    """Read the whole schedule of ``app``, whose tasks are imported for it.

    Raises ``ScheduleError`` for the first entry that names a task or a queue that does not
    exist, has arguments that its task does not take or options that the outbox cannot keep,
    or has a schedule that is never due or that beat would not ask as Celery does. Raises
    ``RegistrationError`` for a task that cannot be registered.
    """
    app.loader.import_default_modules()
    app.finalize()  # else the tasks are registered for the first entry, which gets the blame
    for name, given in sorted(_given(app).items()):
        try:
            entry = entry_of(name, given, app)
            # By their number and names: lazy arguments are evaluated when it is due.
            registry.check_call(app, str(entry.task), entry.args or (), entry.kwargs)
            _check_type(entry.schedule)  # an entry may come ready made, or without one
            _check_kind(entry.schedule)
            _try_out(periodic(name, entry, app), entry.schedule)
        except Exception as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise ScheduleError(f"beat entry {name!r}: {reason}") from error


def entries_of(app: Celery) -> dict[str, ScheduleEntry]:
    """The entries of a schedule that ``check`` has let pass, by name."""
    return {name: entry_of(name, given, app) for name, given in _given(app).items()}


def _given(app: Celery) -> Mapping[str, Any]:
    given: Mapping[str, Any] = maybe_evaluate(app.conf.beat_schedule)
    return given


def entry_of(name: str, given: Any, app: Celery) -> ScheduleEntry:
    """The entry that ``beat_schedule`` has under ``name``, as Celery makes it.

    Raises ``ValueError`` for a schedule that is not one, and ``TypeError`` for unknown keys.
    """
    if isinstance(given, ScheduleEntry):
        return given
    fields = {**given, "name": name, "app": app}
    if "schedule" in fields:
        _check_type(fields["schedule"])
    return ScheduleEntry(**fields)


def _check_type(given: Any) -> None:
    if isinstance(given, bool) or not isinstance(
        given, int | float | timedelta | schedules.BaseSchedule
    ):
        raise ValueError(
            f"its schedule {given!r} is a {type(given).__name__}: give seconds, a timedelta or a "
            "crontab"
        )
    if isinstance(given, int | float):
        try:
            timedelta(seconds=given)
        except (ValueError, OverflowError):
            raise ValueError(f"its schedule {given!r} is not a length of time") from None


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
        raise ValueError(no_such("queue", queue, routing.QUEUE_NAMES))
    if priority is not None and priority not in range(routing.MOST_URGENT + 1):
        raise ValueError(f"priority {priority!r} is not between 0 and {routing.MOST_URGENT}")
    catch_up = options.get("catch_up", CatchUp.ONCE)
    if catch_up not in [policy.value for policy in CatchUp]:
        raise ValueError(f"catch_up {catch_up!r} is none of {', '.join(CatchUp)}")
    timetable, zone = _text(entry.schedule), _zone(entry.schedule, app)
    described = f"{timetable} {zone} {entry.task}"
    arguments = json.dumps([entry.args or (), entry.kwargs or {}], default=_named, sort_keys=True)
    policy = [catch_up, queue, priority]
    whole = f"{described} {arguments} {policy}"
    return PeriodicEntry(
        name=name,
        task=entry.task,
        schedule_hash=sha256(described.encode()).hexdigest(),
        definition=sha256(whole.encode()).hexdigest(),
        description=_for_a_person(entry.schedule, zone, options),
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


def _text(timetable: Any) -> str:
    """What beats compare: two schedules with one text are the same schedule.

    The version before this text had the ``repr`` alone, which is still that of a crontab.
    """
    kind = type(timetable)
    if is_interval(timetable) and kind is schedules.schedule:
        # Celery's repr says "1.00 hour" of 3601 s as well.
        return _every(timetable)
    if kind in (crontab, *CELERYS):
        return repr(timetable)
    return f"{kind.__module__}.{kind.__qualname__} {timetable!r}"


def _every(interval: Any) -> str:
    return f"every {_seconds(interval.run_every)} s"


def _seconds(length: timedelta) -> str:
    """A length without loss: 3601, 0.25."""
    seconds = length.total_seconds()
    return str(int(seconds) if seconds.is_integer() else seconds)


def _zone(timetable: Any, app: Celery) -> str:
    """The time zone that the schedule goes by: the app's, or one of its own."""
    if is_interval(timetable):
        return "UTC"  # its due instants are the same everywhere
    own = getattr(timetable, "tz", None)
    return str(app.conf.timezone if own is None or own == app.timezone else own)


def _for_a_person(timetable: Any, zone: str, options: Mapping[str, Any]) -> str:
    if is_interval(timetable):
        text = _every(timetable)
    else:
        text = repr(timetable)
        if type(timetable) in (crontab, schedules.crontab):
            text = text.removeprefix("<crontab: ").removesuffix(" (m/h/dM/MY/d)>")
        text = f"{text} {zone}"
    with_options = [text, *(f"{name}={value}" for name, value in sorted(options.items()))]
    return ", ".join(with_options)[:MOST_TEXT]


def _named(argument: Any) -> str:
    """What stands for an argument that is not JSON: the same in each process."""
    what: Any = type(argument)
    if isinstance(argument, BeatLazyFunc):
        what = vars(argument)["_func"]
    return f"{getattr(what, '__module__', '')}.{getattr(what, '__qualname__', '')}"


def _check_kind(timetable: Any) -> None:
    """Raise ``ValueError`` for what Celery would ask of the schedule and beat does not."""
    kind: Any = type(timetable)
    if kind.__repr__ is object.__repr__:
        raise ValueError(
            f"its schedule's class {kind.__name__} has no __repr__, by which beats compare: add one"
        )
    if kind.is_due not in [celerys.is_due for celerys in (*CELERYS, schedules.BaseSchedule)]:
        raise ValueError(
            f"its schedule's class {kind.__name__} overrides is_due, which beat does not ask: "
            "override remaining_estimate instead"
        )
    if (
        kind.remaining_estimate is crontab.remaining_estimate
        and kind.remaining_delta is not crontab.remaining_delta
    ):
        raise ValueError(
            f"its schedule's class {kind.__name__} overrides remaining_delta, which "
            "app.tasks.schedules.crontab does not ask: override remaining_estimate instead"
        )
    if getattr(timetable, "relative", False):
        raise ValueError("its schedule has relative=True: give a crontab instead")
    if timetable.nowfun is not None:
        raise ValueError("its schedule has a nowfun: beat goes by its own clock, take it out")
    if is_interval(timetable):
        pause = load_settings().pump_interval_seconds
        if timetable.run_every.total_seconds() < pause:
            raise ValueError(
                f"its schedule is an interval of {_seconds(timetable.run_every)} s: beat looks "
                f"every {pause:g} s (PUMP_INTERVAL_SECONDS), so give it no less"
            )


def _try_out(entry: PeriodicEntry, timetable: Any) -> None:
    due = clock.utcnow()
    try:
        for _ in range(TRIED):
            due = entry.next_due(due)
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise ValueError(f"its schedule {timetable!r} is never due ({reason})") from error


def _value(argument: Any) -> Any:
    return argument() if isinstance(argument, BeatLazyFunc) else argument
