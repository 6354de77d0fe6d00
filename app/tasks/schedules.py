"""Celery's ``crontab``, right also on the days when the clocks change."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from celery import schedules
from celery.utils.time import ffwd

from app import clock
from app.domain.calendar import WallTimes, next_instant


class crontab(schedules.crontab):
    """A drop-in for ``celery.schedules.crontab``: same arguments, same ``repr``, same rest.

    With ``hour`` left open it runs whenever the local clocks show a matching time: in a
    repeated hour twice, in a missing one never. With given hours each matching time runs
    once: when it is shown first, or as soon as the clocks have been put forward over it.
    Celery's own loses the whole repeated hour of the first kind (celery#10107), and runs
    the second kind as long after a missing time as the clocks were put forward.
    """

    # The stubs lack them.
    nowfun: Callable[[], datetime] | None
    minute: set[int]
    hour: set[int]
    day_of_month: set[int]
    month_of_year: set[int]
    day_of_week: set[int]

    def now(self) -> datetime:
        # Not app.now(): that is local, and under freezegun it has lost its fold.
        return (self.nowfun or clock.utcnow)()

    def remaining_estimate(
        self,
        last_run_at: datetime,
        ffwd: type[ffwd] = ffwd,  # not used; Celery's signature
    ) -> timedelta:
        """How long until the first due instant after ``last_run_at``; negative if it is past."""
        zone: Any = self.tz  # a tzinfo; the stubs say str
        due = next_instant(self._wall_times(), zone, self.maybe_make_aware(last_run_at))
        return due - self.maybe_make_aware(self.now()).astimezone(UTC)

    def _wall_times(self) -> WallTimes:
        return WallTimes(
            minutes=tuple(sorted(self.minute)),
            hours=tuple(sorted(self.hour)),
            days_of_month=frozenset(self.day_of_month),
            months=frozenset(self.month_of_year),
            weekdays=frozenset(self.day_of_week),
        )
