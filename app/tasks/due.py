"""When an entry of Celery's schedule is due."""

from datetime import UTC, datetime, timedelta
from typing import Any

from celery.schedules import crontab, schedule

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
REPEATED = 3 * HOUR
"""The most by which a zone's clocks are put back at once (Antarctica/Casey)."""


def next_due(timetable: Any, after: datetime) -> datetime:
    """The first due instant of ``timetable`` after ``after``; both aware, the answer in UTC.

    An interval is due at the multiples of its length since the epoch, so that every beat
    agrees, whenever it was started. Others (``crontab``, ``solar``, a class that overrides
    ``remaining_estimate``) answer for themselves, asked as if ``after`` were now.

    Raises ``ValueError`` where the answer is not later than ``after``, and whatever the
    schedule's own code raises.
    """
    due = _multiple(timetable, after) if is_interval(timetable) else _asked(timetable, after)
    if isinstance(timetable, crontab):
        asked = after
        # In the second pass of a repeated hour Celery's own answers with a time of the first.
        while due <= after and asked < after + REPEATED:
            asked += HOUR
            due = _asked(timetable, asked)
    if due <= after:
        raise ValueError(f"after {after} it is due at {due}, which is not later")
    return due


def is_interval(timetable: Any) -> bool:
    """Whether the schedule is a plain interval, without an estimate of its own."""
    own = type(timetable)
    return (
        isinstance(timetable, schedule)
        and not isinstance(timetable, crontab)
        and own.remaining_estimate is schedule.remaining_estimate
    )


def _multiple(interval: Any, after: datetime) -> datetime:
    # Not in floating-point seconds, which round a multiple to before itself.
    passed = after - EPOCH
    length: timedelta = interval.run_every
    return EPOCH + (passed // length + 1) * length


def _asked(timetable: Any, after: datetime) -> datetime:
    asked = _copy(timetable)
    # Both: a class may have a clock of its own, which is not this question's.
    asked.nowfun = asked.now = lambda: after
    remaining: timedelta = asked.remaining_estimate(after)
    # In another zone this would be a sum of wall-clock times, an hour off across a DST change.
    return after.astimezone(UTC) + remaining


def _copy(timetable: Any) -> Any:
    """A copy with all that the original holds.

    ``copy.copy`` asks Celery's ``__reduce__``, which leaves out a subclass's own attributes.
    """
    kind: Any = type(timetable)
    copied = kind.__new__(kind)
    for parent in kind.__mro__:
        slots = vars(parent).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(timetable, name):
                object.__setattr__(copied, name, getattr(timetable, name))
    vars(copied).update(vars(timetable))
    return copied
