"""A simulated process: greenlets that live and die together."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from greenlet import getcurrent, greenlet

if TYPE_CHECKING:
    from simulations.engine.loop import EventLoop


class Killed(BaseException):
    """The simulated process ends here. Nobody may catch it; what tries meets it again."""

    ends_its_process = True
    """Asked by a task's base class that turns other errors of a body into results."""


class SimulationError(Exception):
    """The replay itself cannot go on: not what a simulated process did, but how it is built."""


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
