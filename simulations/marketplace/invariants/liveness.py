"""Liveness: what is due begins, and nothing stands still for what is not its own fault."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from app import db
from app.models import OutboxEntry
from app.settings import load_settings
from simulations.engine.figures import ENDS
from simulations.engine.worker import WorkerProcess
from simulations.marketplace.invariants.invariant import Invariant

if TYPE_CHECKING:
    from simulations.marketplace.replay import Replay

LOOK = timedelta(minutes=1)
"""What has been due for so long is overdue."""
BOUND = timedelta(minutes=3)
"""A dead worker's messages come back after 45 s, a worker finds its Redis again within 30 s, and
a message that is gone is published again at the second look after its margin."""
TROUBLES = frozenset({"fault", "killed", "emptied"})
"""Events after which everything has the bound again. A worker that ends itself is not one."""


class SomethingStarts(Invariant):
    name = "something always starts"
    sentence = (
        "While a worker that can work has a free slot, and an entry that can be published is "
        "overdue, one that is overdue starts within three minutes."
    )

    def __init__(self, replay: Replay) -> None:
        super().__init__(replay)
        self._tolerance = timedelta(seconds=load_settings().worker_clock_tolerance_seconds)
        self._running: dict[str, str] = {}
        self._started: set[str] = set()
        self._overdue: set[str] = set()
        self._progress = replay.deployment.now
        self._ended_itself = ""
        self._look_again()

    def see(self, now: datetime, event: str, fields: Mapping[str, Any]) -> None:
        if event == "started":
            self._running[fields["id"]] = fields["worker"]
            self._started.add(fields["id"])
        elif event in ENDS:
            self._running.pop(fields["id"], None)
        elif event == "stuck":
            self._ended_itself = fields["worker"]
        if event in ("killed", "exited"):
            gone = fields.get("worker")
            self._running = {
                each: worker for each, worker in self._running.items() if worker != gone
            }
        if event == "killed" and fields.get("worker") == self._ended_itself:
            self._ended_itself = ""
        elif event in TROUBLES:
            self._progress = now

    def _look_again(self) -> None:
        loop = self.replay.deployment.loop
        loop.call_at(loop.now + LOOK, self._look)

    def _look(self) -> None:
        now = self.replay.deployment.now
        before, self._overdue = self._overdue, self._find_overdue(now)
        if not self._overdue or not before <= self._overdue - self._started or not self._can_work():
            self._progress = now
        elif now - self._progress >= BOUND:
            some = sorted(self._overdue)[:3]
            self.broken(
                f"{len(self._overdue)} entries are overdue, workers have free slots, and none of "
                f"them has started for {now - self._progress}",
                *some,
            )
        self._started.clear()
        self._look_again()

    def _find_overdue(self, now: datetime) -> set[str]:
        overdue = select(OutboxEntry.id).where(
            OutboxEntry.pending(), OutboxEntry.due_at < now - LOOK
        )
        with db.reading() as session:
            found = set(session.scalars(overdue))
        return found - self._running.keys() - self.replay.planted

    def _can_work(self) -> bool:
        deployment, database = self.replay.deployment, self.replay.database
        if deployment.broker.down or database.locked or database.cut_off:
            return False
        if not any(beat.alive for beat in deployment.beats.values()):
            return False
        return any(self._has_a_free_slot(worker) for worker in deployment.workers.values())

    def _has_a_free_slot(self, worker: WorkerProcess) -> bool:
        return worker.alive and abs(worker.clock_error) <= self._tolerance and worker.has_free_slot
