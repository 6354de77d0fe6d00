"""Schedules as somebody may write them: some that beat can keep, and some that it cannot."""

from datetime import UTC, datetime, timedelta
from typing import Any

from celery import schedules

from app.tasks.schedules import crontab


class EveryOtherHour(schedules.crontab):
    """A crontab with state of its own: only odd hours, or only even ones."""

    def __init__(self, *args: Any, odd: bool, **fields: Any) -> None:
        super().__init__(*args, **fields)
        self.odd = odd

    def remaining_estimate(self, last_run_at: datetime, ffwd: Any = schedules.ffwd) -> timedelta:
        now = self.now()
        due = last_run_at
        while True:
            due = due.astimezone(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(
                hours=1
            )
            if due.hour % 2 == self.odd:
                return due - now

    def __repr__(self) -> str:
        return f"<every {'odd' if self.odd else 'even'} hour>"


class OwnClock(schedules.schedule):
    """An interval in slots, with a clock of its own that must not be asked."""

    __slots__ = ("seconds_given",)

    def __init__(self, seconds: int) -> None:
        super().__init__(seconds)
        self.seconds_given = seconds

    def now(self) -> datetime:
        return datetime(1970, 1, 1, tzinfo=UTC)

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        return last_run_at + timedelta(seconds=self.seconds_given) - self.now()

    def __repr__(self) -> str:
        return f"<in {self.seconds_given} s>"


class Weekdays(schedules.schedule):
    """Asks in ``is_due`` whether it is a weekday."""

    def is_due(self, last_run_at: datetime) -> Any:
        return super().is_due(last_run_at) if self.now().weekday() < 5 else (False, 3600)


class OwnDelta(crontab):
    """Overrides what only Celery's own crontab asks."""

    def remaining_delta(self, last_run_at: datetime, tz: Any = None, ffwd: Any = None) -> Any:
        raise NotImplementedError


class _Constant(schedules.BaseSchedule):
    """The same answer always."""

    remaining: Any

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        answer: timedelta = self.remaining
        return answer

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class Stuck(_Constant):
    remaining = timedelta(0)


class Backwards(_Constant):
    remaining = timedelta(seconds=-5)


class NotATimedelta(_Constant):
    remaining = 60


class Forever(_Constant):
    remaining = timedelta.max


class Late(schedules.BaseSchedule):
    """Moves a few times, and then no more."""

    def __init__(self, moves: int) -> None:
        super().__init__()
        self.until: datetime | None = None
        self.moves = moves

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        # The state of a copy of it is its own: what counts is when it is asked.
        first = datetime(2100, 1, 1, tzinfo=UTC)
        for number in range(self.moves):
            due = first + number * timedelta(minutes=1)
            if due > last_run_at:
                return due - last_run_at
        return timedelta(0)

    def __repr__(self) -> str:
        return f"<late {self.moves}>"


class Nameless(schedules.BaseSchedule):
    """Moves, but nobody can tell one of it from another."""

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        return timedelta(minutes=1)
