"""The page: what it says, and how it is written."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

from simulations.report import palette
from simulations.report.chart import chart
from simulations.report.timeline import Timeline

FILES = Path(__file__).parent / "page"
BESIDE_ANOTHER = 5
"""Columns that half a page holds."""


@dataclass(frozen=True)
class Verdict:
    """What a reader wants to know first."""

    holds: bool | None
    """``None`` where nothing was promised."""
    headline: str
    lines: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    """Lines of the trace."""


@dataclass(frozen=True)
class Figure:
    """A number, and what it counts."""

    value: str
    what: str
    id: str = ""


@dataclass(frozen=True)
class Table:
    """Cells are shown as text; numbers to the right, with their thousands apart."""

    id: str
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    note: str = ""

    @property
    def numeric(self) -> list[bool]:
        """Whether a column has numbers only."""
        return [
            all(isinstance(row[place], int | float) for row in self.rows)
            for place in range(len(self.head))
        ]

    @property
    def wide(self) -> bool:
        """Whether it has too many columns to stand beside another one."""
        return len(self.head) > BESIDE_ANOTHER


@dataclass(frozen=True)
class Invariant:
    name: str
    sentence: str
    found: str
    """``held``, or in words what became of it."""
    state: str
    """``held``, ``broken`` or ``unknown``."""


@dataclass(frozen=True)
class Page:
    """A run, told for any reader: names of people and their addresses are not in it."""

    title: str
    subtitle: str
    verdict: Verdict
    figures: tuple[Figure, ...]
    command: str
    trace_hash: str
    timeline: Timeline
    slots: int
    days_end: datetime
    broken_at: datetime | None = None
    invariants: tuple[Invariant, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = field(default=())
    """Of the timeline."""


def write(page: Page, into: TextIO) -> None:
    """Write the whole page, without tables that are empty. The same page, the same bytes."""
    page.timeline.close()
    page = replace(page, tables=tuple(table for table in page.tables if table.rows))
    environment = Environment(
        loader=FileSystemLoader(FILES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = figure
    environment.filters["breakable"] = breakable
    template = environment.get_template("report.html.j2")
    parts = template.stream(
        page=page,
        axis=page.timeline.axis,
        bin_minutes=round(page.timeline.axis.width.total_seconds() / 60),
        palette=palette.ALL,
        style=_inside("report.css"),
        script=_inside("report.js"),
        plotly=Markup(get_plotlyjs()),  # noqa: S704 - the library's own script
        data=Markup(_data(page)),  # noqa: S704 - JSON without a "<"
    )
    into.writelines(parts)


def figure(value: Any) -> str:
    """A cell's text."""
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    return str(value)


def breakable(name: Any) -> Markup:
    """A name that a narrow column breaks after its dots and underscores, not inside a word."""
    return Markup(re.sub(r"([._])(?=[^\W\d])", r"\1<wbr>", str(escape(name))))  # noqa: S704 - escaped


def _inside(name: str) -> Markup:
    return Markup((FILES / name).read_text(encoding="utf-8"))  # noqa: S704 - our own file


def _data(page: Page) -> str:
    drawn = chart(page.timeline, slots=page.slots, days_end=page.days_end, broken_at=page.broken_at)
    data = {
        "figure": drawn.to_plotly_json(),
        "ticks": page.timeline.axis.tick_levels(),
        "labels": page.timeline.axis.bin_labels()[: page.timeline.bins],
        "dark": palette.in_the_dark(),
    }
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    # Inside <script> only "</" and "<!--" mean anything; without "<" there is neither.
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def fault_table(timeline: Timeline) -> tuple[Table, ...]:
    """Each fault that began, and when it did and was over; no table where none did."""
    label = timeline.axis.label
    rows = tuple(
        (
            span.fault,
            label(span.begin),
            label(span.end) if span.end else "not in this run" if span.lasts else "–",
        )
        for span in timeline.faults
    )
    return (Table("faults", "Faults", ("fault", "began", "was over"), rows),) if rows else ()
