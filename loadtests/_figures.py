"""Locust's statistics, by queue."""

from __future__ import annotations

from locust.stats import RequestStats

from loadtests._ledger import Measure


class LocustFigures:
    """What ``loadtests._objectives`` asks for, from what locust has counted.

    Locust rounds to 1 ms, to 10 ms above 100 ms, and to 100 ms above a second.
    """

    def __init__(self, stats: RequestStats) -> None:
        self._stats = stats

    def percentile(self, measure: Measure, queue: str, part: float) -> float | None:
        """Seconds; ``None`` where nothing was measured."""
        entry = self._stats.entries.get((queue, measure.value))
        if entry is None or not entry.response_times:
            return None
        return entry.get_response_time_percentile(part) / 1000

    def number(self, measure: Measure, queue: str) -> int:
        """How many were counted."""
        entry = self._stats.entries.get((queue, measure.value))
        return 0 if entry is None else entry.num_requests
