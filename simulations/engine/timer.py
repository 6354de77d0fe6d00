"""A worker's timer on virtual time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from simulations.engine.loop import Event
from simulations.engine.process import Process


class TimerEntry:
    """What ``call_after`` and its like return: kombu's ``Entry``, as far as workers use it."""

    def __init__(self) -> None:
        self.event: Event | None = None
        self.canceled = False

    def cancel(self) -> None:
        self.canceled = True
        if self.event is not None:
            self.event.cancelled = True


class VirtualTimer:
    """kombu's ``Timer``; each call runs in a greenlet of the worker's process."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._entries: list[TimerEntry] = []

    def call_after(
        self,
        secs: float,
        fun: Callable[..., Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        priority: int = 0,
    ) -> TimerEntry:
        return self._plan(secs, lambda: fun(*args, **(kwargs or {})), again=False)

    def _plan(self, secs: float, call: Callable[[], Any], *, again: bool) -> TimerEntry:
        entry = TimerEntry()

        def fire() -> None:
            if self._process.alive:
                self._process.spawn(call)
            if again and self._process.alive:
                entry.event = self._process.loop.call_later(secs, fire)
            else:
                self._entries.remove(entry)

        entry.event = self._process.loop.call_later(secs, fire)
        self._entries.append(entry)
        return entry

    def call_at(
        self,
        eta: float,
        fun: Callable[..., Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        priority: int = 0,
    ) -> TimerEntry:
        # The number counts on kombu's monotonic clock, which it bound before it was frozen;
        # the request that waits for it knows the instant.
        due: datetime = args[0].eta
        now = self._process.loop.now
        return self.call_after((due.astimezone(UTC) - now).total_seconds(), fun, args, kwargs)

    def call_repeatedly(
        self,
        secs: float,
        fun: Callable[..., Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        priority: int = 0,
    ) -> TimerEntry:
        return self._plan(secs, lambda: fun(*args, **(kwargs or {})), again=True)

    def cancel(self, entry: TimerEntry) -> None:
        entry.cancel()
        if entry in self._entries:
            self._entries.remove(entry)

    def clear(self) -> None:
        entries, self._entries = self._entries, []
        for entry in entries:
            entry.cancel()

    def start(self) -> None: ...

    def stop(self) -> None:
        self.clear()

    def ensure_started(self) -> None: ...

    @property
    def schedule(self) -> VirtualTimer:
        return self

    @property
    def queue(self) -> list[TimerEntry]:
        return self._entries
