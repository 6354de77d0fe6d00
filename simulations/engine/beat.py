"""A real Celery beat on virtual time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celery.beat import PersistentScheduler, ScheduleEntry, Scheduler, Service
from kombu.utils.imports import symbol_by_name

from simulations.engine.loop import QuietUntil
from simulations.engine.process import Process
from simulations.engine.trace import Trace

if TYPE_CHECKING:
    from simulations.engine.deployment import Deployment


class NamedEntry(ScheduleEntry):
    """Entries that are due at the same instant go by name; Celery's go by address."""

    def __lt__(self, other: Any) -> bool:
        return bool(self.name < other.name)


class BeatProcess(Process):
    """One beat, from its start to its end."""

    def __init__(
        self,
        deployment: Deployment,
        name: str,
        on_end: Callable[[], None],
        quiet_until: QuietUntil | None,
    ) -> None:
        super().__init__(deployment.loop, name)
        self._deployment = deployment
        self._on_end = on_end
        self._quiet_until = quiet_until
        self.service: Any = None

    def run(self) -> None:
        """What ``celery beat`` does, without its command line."""
        app = self._deployment.app
        scheduler = _on_virtual_time(app.conf.beat_scheduler, self._deployment.trace)
        self.service = Service(app=app, scheduler_cls=scheduler)
        self.service.start()

    def sleep(self, seconds: float) -> None:
        if self._quiet_until is None:
            self.loop.nap(seconds)
        else:
            self.loop.doze(seconds, self._quiet_until)

    def ended(self, error: BaseException | None) -> None:
        if error is not None and not isinstance(error, SystemExit):
            raise error
        self.alive = False
        self._on_end()

    def killed(self) -> None:
        self._deployment.trace.emit("killed", beat=self.name)
        self._on_end()


def _on_virtual_time(scheduler: Any, trace: Trace) -> type[Scheduler]:
    given = symbol_by_name(scheduler)
    # Its file would outlive the replay.
    base = Scheduler if issubclass(given, PersistentScheduler) else given

    class VirtualScheduler(base):  # type: ignore[misc,valid-type]
        Entry = NamedEntry

        def apply_entry(self, entry: Any, producer: Any = None) -> None:
            super().apply_entry(entry, producer)
            trace.emit("beat", entry=entry.name)

        def adjust(self, n: float, drift: float = -0.010) -> float:
            # Celery wakes 10 ms early and looks again, for ever where no time passes.
            return n

    return VirtualScheduler
