"""Pages to write, and what a reader finds in them."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from html.parser import HTMLParser
from typing import Any
from zoneinfo import ZoneInfo

from simulations.report.axis import LocalAxis
from simulations.report.page import Figure, Invariant, Page, Table, Verdict, write
from simulations.report.timeline import Timeline

ZONE = ZoneInfo("America/New_York")


def a_timeline(day: date = date(2026, 7, 15), *, days: int = 1) -> Timeline:
    start, end = (
        datetime.combine(each, time(), ZONE).astimezone(UTC)
        for each in (day, day + timedelta(days=days))
    )
    return Timeline(LocalAxis(start, end, ZONE))


def run_a_task(
    timeline: Timeline, now: datetime, *, queue: str = "q", entry: str = "e", number: int = 0
) -> None:
    task = {"task": "t", "id": f"{queue} {number}", "queue": queue, "worker": "w"}
    timeline.see(now, "beat", {"entry": entry})
    for seconds, event in enumerate(("published", "received", "started", "succeeded")):
        timeline.see(now + timedelta(seconds=seconds), event, task)


def a_page(timeline: Timeline | None = None, **changed: Any) -> Page:
    timeline = timeline or a_timeline()
    given: dict[str, Any] = {
        "title": "A day",
        "subtitle": "of tests",
        "verdict": Verdict(True, "All 1 invariants hold"),
        "figures": (Figure("10", "events"), Figure("1.5 s", "of wall time", id="wall-time")),
        "command": 'python day.py --seed 1 --fault "redis-down@10:00/5m"',
        "trace_hash": "abc",
        "timeline": timeline,
        "slots": 8,
        "days_end": timeline.axis.end,
        "invariants": (Invariant("each once", "Each has one.", "held", "held"),),
        "tables": (Table("tasks", "Tasks", ("task", "runs"), (("t", 1234),)),),
    }
    return Page(**{**given, **changed})


def written(page: Page) -> str:
    into = io.StringIO()
    write(page, into)
    return into.getvalue()


@dataclass
class Read(HTMLParser):
    """The tags with their attributes, and the text within each id and each tag."""

    html: str
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    texts: list[tuple[tuple[str, ...], str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[tuple[str, str]] = []
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self._open.append((tag, dict(attrs).get("id") or ""))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        path = tuple(each for pair in self._open for each in pair if each)
        self.texts.append((path, data))

    @property
    def ids(self) -> list[str]:
        return [attrs["id"] for _, attrs in self.tags if attrs.get("id")]  # type: ignore[misc]

    def within(self, name: str) -> str:
        """All text inside of an id or a tag."""
        return "".join(text for path, text in self.texts if name in path)

    @property
    def data(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.within("timeline-data"))
        return found

    @property
    def figure(self) -> dict[str, Any]:
        found: dict[str, Any] = self.data["figure"]
        return found
