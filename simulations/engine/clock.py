"""Virtual time: freezegun's frozen clock, moved from event to event."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import freezegun.api as frozen


def wall_seconds(*, _real: Callable[[], float] = frozen.real_perf_counter) -> float:
    """Seconds of the real clock, which goes on: for measuring how long a replay takes."""
    # A default argument, for freezegun replaces what modules hold by name.
    return _real()


_real_sleep = time.sleep


class VirtualClock:
    """The time that every piece of code in this process is told.

    ``now`` is the true virtual instant (aware, UTC); a process whose own clock is wrong is
    told ``now + error``.
    """

    def __init__(self, start: datetime) -> None:
        if start.tzinfo is None:
            raise TypeError(f"start={start!r} is naive: pass an aware instant, such as in UTC")
        self._now = start.astimezone(UTC)
        self._error = timedelta(0)
        self._factory: Any = None

    @property
    def now(self) -> datetime:
        return self._now

    def move_to(self, instant: datetime) -> None:
        """Jump; the clock never goes back."""
        if instant < self._now:
            raise ValueError(f"the clock is at {self._now}, it cannot go back to {instant}")
        self._now = instant.astimezone(UTC)
        self._tell()

    def mislead(self, error: timedelta) -> None:
        """Be off by ``error`` for whoever asks from now on."""
        if error != self._error:
            self._error = error
            self._tell()

    def _tell(self) -> None:
        if self._factory is not None:
            self._factory.time_to_freeze = (self._now + self._error).replace(tzinfo=None)

    @contextmanager
    def in_force(self, sleep: Callable[[float], None]) -> Iterator[None]:
        """Freeze all clocks of this process at ``now``; ``time.sleep`` calls ``sleep``."""
        with _keeping_fold(), _sleeping_by(sleep):
            freezer = frozen.freeze_time(self._now)
            self._factory = freezer.start()
            # By default some modules see real time, which costs a look at the stack at
            # every question; here nobody may.
            frozen.ignore_lists[-1] = ()
            try:
                self._tell()
                yield
            finally:
                self._factory = None
                freezer.stop()


@contextmanager
def _keeping_fold() -> Iterator[None]:
    """Let freezegun tell the time in real ``datetime`` objects.

    Its own drop ``fold`` (its issues 422 and 596): the second 01:30 of an autumn day would be
    told as the first one, and even a right schedule be wrong. And they beget each other in all
    arithmetic, which is ten times slower.
    """
    fake: Any = frozen.FakeDatetime
    convert, now = frozen.datetime_to_fakedatetime, fake.__dict__["now"]

    def same(instant: Any) -> Any:
        return instant

    def made(_cls: type[datetime], *args: Any, **kwargs: Any) -> datetime:
        return frozen.real_datetime(*args, **kwargs)

    def told(_cls: type[frozen.FakeDatetime], tz: tzinfo | None = None) -> datetime:
        instant = frozen.get_current_time()
        return instant if tz is None else tz.fromutc(instant.replace(tzinfo=tz))

    frozen.datetime_to_fakedatetime = same  # type: ignore[assignment]
    fake.now = classmethod(told)
    fake.__new__ = staticmethod(made)
    try:
        yield
    finally:
        frozen.datetime_to_fakedatetime = convert
        fake.now = now
        del fake.__new__


@contextmanager
def _sleeping_by(sleep: Callable[[float], None]) -> Iterator[None]:
    """Let ``time.sleep`` be ``sleep``, also where a module bound it by name.

    Afterwards it is the real one again, also in a module that was imported meanwhile.
    """

    def virtual_sleep(seconds: float) -> None:
        sleep(seconds)

    _rebind(_real_sleep, virtual_sleep)
    try:
        yield
    finally:
        _rebind(virtual_sleep, _real_sleep)


def _rebind(old: Callable[[float], None], new: Callable[[float], None]) -> None:
    for module in list(sys.modules.values()):
        names = getattr(module, "__dict__", {})
        if names.get("__name__") == __name__:
            continue
        for name in [name for name, value in list(names.items()) if value is old]:
            setattr(module, name, new)
