"""The event loop of virtual time, and the simulated processes that live on it."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count

from greenlet import getcurrent, greenlet

from simulations.engine.clock import VirtualClock

INSTANT = timedelta(microseconds=1)
NEVER = datetime.max.replace(tzinfo=UTC)

QuietUntil = Callable[[], datetime | None]
"""Asked before a tick: the instant before which ticks would do nothing, as things are now;
``None`` where nothing is in sight. A time that has passed says: tick."""


class Killed(BaseException):
    """The simulated process ends here. Nobody may catch it; what tries meets it again."""


class SimulationError(Exception):
    """The replay itself cannot go on: not what a simulated process did, but how it is built."""


@dataclass(order=True)
class Event:
    """Something that is to happen at an instant; ``cancelled`` ones are passed over."""

    when: datetime
    number: int
    call: Callable[[], None] = field(compare=False)
    cancelled: bool = field(default=False, compare=False)


class Process:
    """A simulated operating system process: greenlets that live and die together.

    ``enter`` and ``leave`` put process-wide state in and out of force; they are called when
    the loop goes from one process to another.
    """

    def __init__(self, loop: EventLoop, name: str) -> None:
        self.loop = loop
        self.name = name
        self.alive = True
        self.clock_error = timedelta(0)
        self._greenlets: dict[greenlet, None] = {}
        self._checkpoints_left: int | None = None
        self._doomed: dict[greenlet, tuple[int, Callable[[], None]]] = {}

    def enter(self) -> None: ...

    def leave(self) -> None: ...

    def ended(self, error: BaseException | None) -> None:
        """Called when the main greenlet has ended by itself; ``error`` is what left it."""
        if error is not None:
            raise error

    def start(self, main: Callable[[], None]) -> None:
        """Run ``main`` now, in the middle of whatever runs."""
        self.spawn(main, on_end=self.ended)

    def spawn(
        self, call: Callable[[], None], on_end: Callable[[BaseException | None], None] | None = None
    ) -> greenlet:
        """Run ``call`` in a greenlet of this process, at this instant, after what runs now."""

        def run() -> None:
            error: BaseException | None = None
            try:
                call()
            except Killed:
                pass
            except BaseException as raised:
                error = raised
            finally:
                self._greenlets.pop(made, None)
                self._doomed.pop(made, None)
            if not self.alive:
                return
            if on_end is not None:
                on_end(error)
            elif error is not None:
                raise error

        made = greenlet(run, parent=self.loop.hub)
        self._greenlets[made] = None
        self.loop.call_at(self.loop.now, lambda: self.loop.resume(self, made))
        return made

    def checkpoint(self) -> None:
        """A place at which a kill can strike: before a statement, a command, a mail.

        Raises ``Killed`` in a dead process, so that nothing it tries has an effect.
        """
        if not self.alive:
            raise Killed
        if self._doomed and (current := getcurrent()) in self._doomed:
            self._strike(current)
        if self._checkpoints_left is not None:
            if self._checkpoints_left == 0:
                self.kill()
            else:
                self._checkpoints_left -= 1

    def end_greenlet_after(
        self, doomed: greenlet, checkpoints: int, then: Callable[[], None]
    ) -> None:
        """Kill one greenlet of the process at its checkpoint after so many others: a child."""
        self._doomed[doomed] = (checkpoints, then)

    def spared(self, doomed: greenlet) -> int | None:
        """How many checkpoints a doomed greenlet had still before it; ``None`` of another."""
        left, _ = self._doomed.get(doomed, (-1, _nothing))
        return left if left >= 0 else None

    def _strike(self, current: greenlet) -> None:
        left, then = self._doomed[current]
        if left > 0:
            self._doomed[current] = (left - 1, then)
            return
        if left == 0:
            self.doom(current)
            then()
        raise Killed

    def doom(self, victim: greenlet) -> None:
        """Let whatever the greenlet tries from now on meet its end."""
        self._doomed[victim] = (-1, _nothing)

    def kill_after(self, checkpoints: int) -> None:
        """Kill the process at its checkpoint after so many others."""
        self._checkpoints_left = checkpoints

    def kill(self) -> None:
        """SIGKILL. Where one of its own greenlets asks for it, this does not return."""
        if not self.alive:
            return
        self.alive = False
        self._checkpoints_left = None
        current = getcurrent()
        for each in list(self._greenlets):
            if each is not current:
                self.loop.call_at(self.loop.now, partial(self._bury, each))
        self.killed()
        if current in self._greenlets:
            raise Killed

    def killed(self) -> None:
        """Called when the process was killed."""

    def _bury(self, doomed: greenlet) -> None:
        if doomed:  # one that never began has nothing to let go of
            self.loop.resume(self, doomed, Killed())

    def sleep(self, seconds: float) -> None:
        """What ``time.sleep`` is in this process."""
        self.loop.nap(seconds)


def _nothing() -> None: ...


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
        self._events: list[Event] = []
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

    def call_at(self, when: datetime, call: Callable[[], None]) -> Event:
        """Call ``call`` in the hub at ``when`` (aware), or now if that has passed."""
        event = Event(max(when.astimezone(UTC), self.now), next(self._numbers), call)
        heapq.heappush(self._events, event)
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
                event = heapq.heappop(self._events)
                self.clock.move_to(event.when)
                event.call()

    def _next_event(self) -> datetime:
        while self._events and self._events[0].cancelled:
            heapq.heappop(self._events)
        return self._events[0].when if self._events else NEVER

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
