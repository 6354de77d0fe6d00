"""When an entry of Celery's schedule is due."""

import copy
import math
from datetime import UTC, datetime, timedelta
from typing import Any

from celery.schedules import crontab, schedule


def next_due(timetable: Any, after: datetime) -> datetime:
    """The first due instant of ``timetable`` after ``after``; both aware, the answer in UTC.

    An interval is due at the multiples of its length since the epoch, so that every beat
    agrees, whenever it was started. Others (``crontab``, ``solar``) answer for themselves,
    asked as if ``after`` were now.
    """
    if isinstance(timetable, schedule) and not isinstance(timetable, crontab):
        interval: Any = timetable  # the stubs lack run_every
        length = interval.run_every.total_seconds()
        return datetime.fromtimestamp((math.floor(after.timestamp() / length) + 1) * length, UTC)
    asked = copy.copy(timetable)
    asked.app = timetable.app
    asked.nowfun = lambda: after
    remaining: timedelta = asked.remaining_estimate(after)
    # In another zone this would be a sum of wall-clock times, an hour off across a DST change.
    return after.astimezone(UTC) + remaining
