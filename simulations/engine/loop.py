"""The event loop of virtual time."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count

from greenlet import getcurrent, greenlet

from simulations.engine.clock import VirtualClock
from simulations.engine.process import Killed, Process, SimulationError

INSTANT = timedelta(microseconds=1)
NEVER = datetime.max.replace(tzinfo=UTC)

QuietUntil = Callable[[], datetime | None]
"""Asked before a tick: the instant before which ticks would do nothing, as things are now;
``None`` where nothing is in sight. A time that has passed says: tick."""


@dataclass(slots=True)
class Event:
    """Something that is to happen at an instant; ``cancelled`` ones are passed over."""

    when: datetime
    call: Callable[[], None]
    cancelled: bool = False


class Ticker:
    """Something that is done again and again, and passed over while it would do nothing.

    It has its turn after all events of its instant; of several, in the order of their names.
    """

    def __init__(
        self,
        process: Process,
        name: str,
        seconds: float,
        fire: Callable[[], None],
        quiet_until: QuietUntil,
    ) -> None:
        self.process = process
        self.name = f"{process.name}:{name}"
        self.interval = timedelta(seconds=seconds)
        self.next_tick = process.loop.now + self.interval
        self.fire = fire
        self._quiet_until = quiet_until

    def hurry(self) -> None:
        """Have a turn within one interval: a turn that was passed over now has something to do."""
        self.next_tick = min(self.next_tick, self.process.loop.now + self.interval)

    def pass_quiet_ticks(self, horizon: datetime) -> None:
        """Pass over what would do nothing before ``horizon``, when something else happens."""
        quiet = self._quiet_until()
        until = horizon if quiet is None else min(horizon, quiet)
        if until > self.next_tick:
            self.next_tick += -((self.next_tick - until) // self.interval) * self.interval


class EventLoop:
    """Runs what is due, one thing at a time, and jumps the clock in between."""

    def __init__(self, clock: VirtualClock, *, skip_quiet_ticks: bool = True) -> None:
        self.clock = clock
        self.hub = getcurrent()
        self.current: Process | None = None
        self.stop_for: BaseException | None = None
        """Raised by ``run_until`` before the next event: what an observer found."""
        # Numbered, so that those of one instant keep their order.
        self._events: list[tuple[datetime, int, Event]] = []
        self._numbers = count()
        self._tickers: list[Ticker] = []
        self._skip = skip_quiet_ticks

    @property
    def now(self) -> datetime:
        return self.clock.now

    @property
    def running(self) -> Process:
        """The process that runs at this moment. Raises ``SimulationError`` in the hub."""
        if self.current is None or getcurrent() is self.hub:
            raise SimulationError("this is to be called in a simulated process")
        return self.current

    @property
    def active(self) -> Process | None:
        """The process that runs at this moment; ``None`` in the hub."""
        return None if getcurrent() is self.hub else self.current

    def call_at(self, when: datetime, call: Callable[[], None]) -> Event:
        """Call ``call`` in the hub at ``when`` (aware), or now if that has passed."""
        event = Event(max(when.astimezone(UTC), self.now), call)
        heapq.heappush(self._events, (event.when, next(self._numbers), event))
        return event

    def call_later(self, seconds: float, call: Callable[[], None]) -> Event:
        return self.call_at(self.now + timedelta(seconds=seconds), call)

    def every(
        self,
        process: Process,
        name: str,
        seconds: float,
        tick: Callable[[], None],
        quiet_until: QuietUntil,
    ) -> Ticker:
        """Let ``process`` do ``tick`` every so many seconds, for as long as it lives."""

        def fire() -> None:
            ticker.next_tick += ticker.interval
            process.spawn(tick)

        ticker = Ticker(process, name, seconds, fire, quiet_until)
        self._tickers.append(ticker)
        return ticker

    def forget(self, ticker: Ticker) -> None:
        """Let a ticker tick no more."""
        if ticker in self._tickers:
            self._tickers.remove(ticker)

    def doze(self, seconds: float, quiet_until: QuietUntil) -> None:
        """Sleep, and go on sleeping in steps of ``seconds`` while nothing is to be done."""
        sleeper, process = getcurrent(), self.running
        process.checkpoint()

        def fire() -> None:
            self._tickers.remove(ticker)
            self.resume(process, sleeper)

        ticker = Ticker(process, "sleep", seconds, fire, quiet_until)
        self._tickers.append(ticker)
        self.hub.switch()

    def sleep(self, seconds: float) -> None:
        """What ``time.sleep`` is."""
        self.running.sleep(seconds)

    def nap(self, seconds: float) -> None:
        """Let go of the current greenlet for so long."""
        sleeper, process = getcurrent(), self.running
        process.checkpoint()
        # Beat sleeps for what rounding left over; it would look again for ever at one instant.
        wait = max(timedelta(seconds=seconds), INSTANT if seconds > 0 else timedelta(0))
        self.call_at(self.now + wait, lambda: self.resume(process, sleeper))
        self.hub.switch()

    def wait(self) -> None:
        """Let go of the current greenlet until somebody resumes it."""
        self.checkpoint()
        self.hub.switch()

    def checkpoint(self) -> None:
        """Let a kill strike the process that runs, if one does."""
        if self.current is not None and getcurrent() is not self.hub:
            self.current.checkpoint()

    def resume(
        self, process: Process, sleeper: greenlet, error: BaseException | None = None
    ) -> None:
        """Go on with a greenlet, from the hub."""
        if sleeper.dead:
            return
        if not process.alive and error is None:
            if not sleeper:
                return
            error = Killed()
        self.put_in_force(process)
        if error is not None:
            sleeper.throw(error)
        else:
            sleeper.switch()

    def put_in_force(self, process: Process) -> None:
        """Make ``process`` the one that runs: its global state, and its clock."""
        if process is not self.current:
            if self.current is not None:
                self.current.leave()
            self.current = process
            process.enter()
        self.clock.mislead(process.clock_error)

    def run_until(self, end: datetime) -> None:
        """Run all that is due up to and including ``end``; the clock is there afterwards."""
        if getcurrent() is not self.hub:
            raise SimulationError("run_until was called from inside the simulation")
        while True:
            if self.stop_for is not None:
                raise self.stop_for
            horizon = min(self._next_event(), end + INSTANT)
            ticker = self._next_ticker(horizon)
            if ticker is not None:
                self.clock.move_to(ticker.next_tick)
                ticker.fire()
            elif horizon > end:
                self.clock.move_to(end)
                return
            else:
                when, _, event = heapq.heappop(self._events)
                self.clock.move_to(when)
                event.call()

    def _next_event(self) -> datetime:
        while self._events and self._events[0][-1].cancelled:
            heapq.heappop(self._events)
        return self._events[0][0] if self._events else NEVER

    def _next_ticker(self, horizon: datetime) -> Ticker | None:
        due = [ticker for ticker in self._tickers if ticker.next_tick < horizon]
        if not due:
            return None
        for ticker in due:
            if not ticker.process.alive:
                self._tickers.remove(ticker)
            elif self._skip:
                ticker.pass_quiet_ticks(horizon)
        needed = [ticker for ticker in due if ticker.process.alive and ticker.next_tick < horizon]
        return min(needed, key=lambda ticker: (ticker.next_tick, ticker.name), default=None)
