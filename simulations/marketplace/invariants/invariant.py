"""What an invariant is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from simulations.marketplace.replay import Replay

SLACK = timedelta(seconds=5)
"""What is so young may still be on its way."""


class BrokenInvariantError(Exception):
    """An invariant does not hold; says which, when, what was seen, and the last lines of it."""

    def __init__(self, name: str, at: datetime, what: str, lines: Sequence[str]) -> None:
        self.name = name
        self.at = at
        self.what = what
        self.lines = list(lines)
        super().__init__(f"{name}: {what} (at {at.isoformat()})")


class Invariant:
    """Sees each line of the trace, and is asked once more at the end."""

    name: ClassVar[str]
    sentence: ClassVar[str]

    def __init__(self, replay: Replay) -> None:
        self.replay = replay

    def see(self, now: datetime, event: str, fields: Mapping[str, Any]) -> None:
        """Called as it happens, in the process that does it: to look, and to ask nothing."""

    def conclude(self) -> None:
        """Called when the calm is over."""

    def close(self) -> None:
        """Called when the replay is over."""

    def later(self, check: Callable[[], None]) -> None:
        """Run ``check`` at this instant outside of all processes, where it may read tables."""
        self.replay.deployment.loop.call_at(self.replay.deployment.now, check)

    def broken(self, what: str, *ids: str) -> None:
        """Stop the replay."""
        trace = self.replay.deployment.trace
        loop = self.replay.deployment.loop
        if loop.stop_for is None:
            loop.stop_for = BrokenInvariantError(
                self.name, self.replay.deployment.now, what, trace.about(*ids)
            )
