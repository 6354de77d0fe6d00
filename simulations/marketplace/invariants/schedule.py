"""The schedule: each due instant has its run."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from simulations.marketplace.faults import BEAT_FAULTS
from simulations.marketplace.invariants.invariant import Invariant
from simulations.marketplace.timetable import due_instants, entries

if TYPE_CHECKING:
    from simulations.marketplace.replay import Replay


class EachDueInstantOnce(Invariant):
    name = "each due instant once"
    sentence = "Each due instant of the schedule has one run; none is run that is not due."

    def __init__(self, replay: Replay) -> None:
        super().__init__(replay)
        self.runs: dict[str, Counter[datetime]] = defaultdict(Counter)

    def see(self, now: datetime, event: str, fields: Mapping[str, Any]) -> None:
        if event != "beat":
            return
        entry, due = fields["entry"], datetime.fromisoformat(fields["due"])
        self.runs[entry][due] += 1
        if self.runs[entry][due] > 1:
            self.broken(f"{entry} ran twice for {due.isoformat()}", entry)

    def conclude(self) -> None:
        replay = self.replay
        for entry, when in entries().items():
            due = set(due_instants(when, start=replay.start, end=replay.end, zone=replay.zone))
            ran = {each for each in self.runs[entry] if replay.start <= each < replay.end}
            if extra := sorted(ran - due):
                self.broken(f"{entry} ran at {extra[0].isoformat()}, when it was not due", entry)
            missing = sorted(due - ran)
            if missing and not self._excused(entry, when.missed, missing):
                self.broken(
                    f"{entry} has no run for {len(missing)} of {len(due)} due instants, the first "
                    f"{missing[0].isoformat()}",
                    entry,
                )

    def _excused(self, entry: str, policy: str, missing: list[datetime]) -> bool:
        """Whether a fault let a later run stand for the missed ones, or nobody needs them."""
        if policy == "each" or not any(
            fault.kind in BEAT_FAULTS for fault in self.replay.plan.faults
        ):
            return False
        if policy == "skip":
            return True
        return all(any(run > instant for run in self.runs[entry]) for instant in missing)
