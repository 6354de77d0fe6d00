"""What a replay counts as it goes: runs of tasks, depths and waits of queues, mails."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from datetime import datetime
from typing import Any

ENDS = frozenset({"succeeded", "failed", "retried", "ignored", "lost"})


class Figures:
    """An observer of the trace."""

    def __init__(self, *, start: datetime, end: datetime) -> None:
        self.tasks: dict[str, Counter[str]] = defaultdict(Counter)
        self.beat: Counter[str] = Counter()
        self.published: Counter[str] = Counter()
        self.depth: Counter[str] = Counter()
        self.max_depth: Counter[str] = Counter()
        self.waits: dict[str, list[float]] = defaultdict(list)
        self._since: dict[str, datetime] = {}
        self._start = start
        self._end = end

    def see(self, now: datetime, event: str, fields: Mapping[str, Any]) -> None:
        if event in ("published", "redelivered", "duplicated"):
            queue = fields["queue"]
            self.depth[queue] += 1
            self.max_depth[queue] = max(self.max_depth[queue], self.depth[queue])
            self._since[fields["id"]] = now
            self.published[queue] += event == "published"
            if event == "redelivered":
                self.tasks[fields["task"]]["redelivered"] += 1
        elif event in ("received", "discarded"):
            queue = fields["queue"]
            self.depth[queue] -= 1
            since = self._since.pop(fields["id"], None)
            if since is not None:
                self.waits[queue].append((now - since).total_seconds())
        elif event == "started":
            self.tasks[fields["task"]]["runs"] += 1
        elif event in ENDS:
            self.tasks[fields["task"]][event] += 1
        elif event == "beat":
            # Where the scheduler says for which instant, that one counts.
            due = datetime.fromisoformat(fields["due"]) if "due" in fields else now
            if self._start <= due < self._end:
                self.beat[fields["entry"]] += 1
        elif event == "emptied":
            self.depth.clear()

    def queues(self) -> dict[str, dict[str, float]]:
        return {
            queue: {
                "published": self.published[queue],
                "max_depth": self.max_depth[queue],
                "wait_p50": percentile(self.waits[queue], 0.5),
                "wait_p99": percentile(self.waits[queue], 0.99),
            }
            for queue in sorted(self.published)
        }


def percentile(values: list[float], share: float) -> float:
    """The smallest value that is not exceeded by ``share`` of them; 0 of none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 6)
