"""Limits of time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from simulations.engine.figures import ENDS
from simulations.marketplace.invariants.invariant import Invariant

if TYPE_CHECKING:
    from simulations.marketplace.replay import Replay

HARD_LIMIT = timedelta(seconds=600)


class WithinLimits(Invariant):
    name = "no task beyond its limits"
    sentence = "No task runs longer than its hard time limit."

    def __init__(self, replay: Replay) -> None:
        super().__init__(replay)
        self._started: dict[tuple[str, str], datetime] = {}

    def see(self, now: datetime, event: str, fields: Mapping[str, Any]) -> None:
        if event == "started":
            self._started[fields["id"], fields["worker"]] = now
        elif event in ENDS:
            began = self._started.pop((fields["id"], fields["worker"]), now)
            if now - began > HARD_LIMIT:
                self.broken(f"{fields['task']} ran for {now - began}", fields["id"])
