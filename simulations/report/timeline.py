"""What a run did in each bin of its time: an observer of the trace.

It is called for every line, so it adds up and keeps no line: what it holds grows with the bins,
the queues and the beat entries, and not with the events.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from simulations.engine.figures import percentile
from simulations.report.axis import LocalAxis

ENDED = {
    "succeeded": "done",
    "ignored": "done",
    "retried": "retried",
    "failed": "failed",
    "lost": "failed",
}


class Peaks:
    """A figure that goes up and down: the most that it was in each bin."""

    def __init__(self) -> None:
        self.now = 0
        self._of: list[int] = []

    def change(self, bin_: int, to: int) -> None:
        self.until(bin_)
        self.now = to
        if to > self._of[bin_]:
            self._of[bin_] = to

    def until(self, bin_: int) -> list[int]:
        """The bins up to this one; in those in which nothing happened it stayed as it was."""
        missing = bin_ + 1 - len(self._of)
        if missing > 0:
            self._of.extend([self.now] * missing)
        return self._of


@dataclass
class Marks:
    """Runs of a beat entry within one bin."""

    first: datetime
    runs: int = 1


@dataclass
class Span:
    """A fault: when it began and, if it lasts, when it was over."""

    fault: str
    begin: datetime
    end: datetime | None = None

    @property
    def lasts(self) -> bool:
        """Whether it was asked for with a duration."""
        return "/" in self.fault

    @property
    def kind(self) -> str:
        return self.fault.partition("@")[0]


class Timeline:
    """Watches a trace from the start of ``axis`` on."""

    def __init__(self, axis: LocalAxis) -> None:
        self.axis = axis
        self.beat: dict[str, dict[int, Marks]] = {}
        self.depth: dict[str, Peaks] = defaultdict(Peaks)
        self.slots = Peaks()
        self.waits: dict[str, dict[int, tuple[float, float]]] = defaultdict(dict)
        """p50 and p99 in seconds, for bins in which a message was received."""
        self.ended: dict[str, dict[int, int]] = {
            kind: defaultdict(int) for kind in dict.fromkeys(ENDED.values())
        }
        self.mails: dict[int, int] = defaultdict(int)
        self.mails_again: dict[int, int] = defaultdict(int)
        self.faults: list[Span] = []
        self.last = axis.start
        self._bin = 0
        self._bin_ends = axis.start + axis.width
        self._since: dict[str, datetime] = {}
        self._waited: dict[str, list[float]] = defaultdict(list)
        self._at_work: dict[str, set[str]] = defaultdict(set)
        self._handlers: dict[str, Callable[[datetime, Mapping[str, Any]], None]] = {
            "published": self._waiting,
            "redelivered": self._waiting,
            "duplicated": self._waiting,
            "received": self._received,
            "discarded": self._received,
            "started": self._started,
            "beat": self._beat,
            "mail": self._mail,
            "fault": self._fault,
            "emptied": self._emptied,
            "killed": self._gone,
            "exited": self._gone,
            **{event: self._ending(kind) for event, kind in ENDED.items()},
        }

    def see(self, now: datetime, event: str, fields: Mapping[str, Any]) -> None:
        """As ``Trace.observe`` wants it."""
        if now >= self._bin_ends:
            self._next_bin(now)
        self.last = now
        handler = self._handlers.get(event)
        if handler is not None:
            handler(now, fields)

    def close(self) -> None:
        """Settle the last bin: nothing more is seen."""
        self._settle_waits()

    @property
    def bins(self) -> int:
        """So many were reached: all of them, but where the run was stopped."""
        return self._bin + 1

    def _next_bin(self, now: datetime) -> None:
        self._settle_waits()
        axis = self.axis
        self._bin = min((now - axis.start) // axis.width, axis.bins - 1)
        self._bin_ends = axis.start + (self._bin + 1) * axis.width
        if self._bin == axis.bins - 1:
            self._bin_ends = datetime.max.replace(tzinfo=now.tzinfo)

    def _settle_waits(self) -> None:
        for queue, seconds in self._waited.items():
            self.waits[queue][self._bin] = percentile(seconds, 0.5), percentile(seconds, 0.99)
        self._waited.clear()

    def _waiting(self, now: datetime, fields: Mapping[str, Any]) -> None:
        depth = self.depth[fields["queue"]]
        depth.change(self._bin, depth.now + 1)
        self._since[fields["id"]] = now

    def _received(self, now: datetime, fields: Mapping[str, Any]) -> None:
        queue = fields["queue"]
        depth = self.depth[queue]
        # One that was on its way when the broker was emptied is counted no more.
        depth.change(self._bin, max(0, depth.now - 1))
        since = self._since.pop(fields["id"], None)
        if since is not None:
            self._waited[queue].append((now - since).total_seconds())

    def _emptied(self, now: datetime, fields: Mapping[str, Any]) -> None:
        for depth in self.depth.values():
            depth.change(self._bin, 0)

    def _started(self, now: datetime, fields: Mapping[str, Any]) -> None:
        self._at_work[fields["worker"]].add(fields["id"])
        self.slots.change(self._bin, self.slots.now + 1)

    def _ending(self, kind: str) -> Callable[[datetime, Mapping[str, Any]], None]:
        ended = self.ended[kind]

        def end(now: datetime, fields: Mapping[str, Any]) -> None:
            ended[self._bin] += 1
            at_work = self._at_work[fields["worker"]]
            if fields["id"] in at_work:
                at_work.remove(fields["id"])
                self.slots.change(self._bin, self.slots.now - 1)

        return end

    def _gone(self, now: datetime, fields: Mapping[str, Any]) -> None:
        left = self._at_work.pop(fields.get("worker", ""), set())
        self.slots.change(self._bin, self.slots.now - len(left))

    def _beat(self, now: datetime, fields: Mapping[str, Any]) -> None:
        marks = self.beat.setdefault(fields["entry"], {})
        mark = marks.get(self._bin)
        if mark is None:
            marks[self._bin] = Marks(now)
        else:
            mark.runs += 1

    def _mail(self, now: datetime, fields: Mapping[str, Any]) -> None:
        mails = self.mails if fields["copy"] == 1 else self.mails_again
        mails[self._bin] += 1

    def _fault(self, now: datetime, fields: Mapping[str, Any]) -> None:
        if fields["phase"] == "begin":
            self.faults.append(Span(fields["fault"], now))
            return
        for span in self.faults:
            if span.fault == fields["fault"] and span.end is None:
                span.end = now
                return
