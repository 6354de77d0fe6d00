"""Panels of rows below each other over one axis of time, as a Plotly figure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from html import escape
from typing import Any

from plotly import graph_objects

from simulations.report import palette
from simulations.report.timeline import Timeline

LONGEST_NAME = 44
TITLE_HEIGHT, LABEL_HEIGHT, GAP = 30, 17, 9
LANE_HEIGHT, ROW_HEIGHT, WIDE_ROW_HEIGHT = 16, 34, 72
TOP, BOTTOM = 64, 44
"""Pixels."""

Trace = dict[str, Any]
TIME_AND_TEXT = "%{customdata[0]}<br>%{customdata[1]}<extra></extra>"
"""What a trace says where it is pointed at; one of each strip does."""


def colour(role: tuple[str, str]) -> str:
    """The one on white; the page puts the other one in its place in the dark."""
    return role[0]


@dataclass
class Row:
    """A strip of the timeline with a vertical axis of its own."""

    traces: list[Trace]
    label: str = ""
    aside: str = ""
    height: int = ROW_HEIGHT
    most: float | None = None
    """Top of the vertical axis, which is not shown where it is ``None``."""
    most_text: str = ""
    line_at: float | None = None


@dataclass
class Panel:
    title: str
    about: str = ""
    rows: list[Row] = field(default_factory=list)


def shown(name: str) -> str:
    """``name`` as Plotly shows it as it is: it takes tags in a text for its own."""
    short = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
    return escape(short, quote=False)


class Drawing:
    """Puts rows below each other."""

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self.height = 0
        self._begun = False
        self.traces: list[Trace] = []
        self.shapes: list[dict[str, Any]] = []
        self._rows: list[tuple[Row, int]] = []
        self._texts: list[tuple[int, dict[str, Any]]] = []

    def add(self, panel: Panel) -> None:
        if self._begun:
            self.height += GAP
        else:
            self.height += GAP // 2
        self._text(f"<b>{panel.title}</b>", self.height, size=14, ink=palette.INK)
        self._text(panel.about, self.height + 1, size=12, ink=palette.MUTED, right=True)
        self.height += TITLE_HEIGHT
        for row in panel.rows:
            if row.label:
                self._text(shown(row.label), self.height, size=12, ink=palette.INK)
                self._text(row.aside, self.height, size=12, ink=palette.MUTED, right=True)
                self.height += LABEL_HEIGHT
            self._rows.append((row, self.height))
            self.height += row.height + GAP
        self._begun = True

    def _text(
        self, text: str, top: int, *, size: int, ink: tuple[str, str], right: bool = False
    ) -> None:
        side = "right" if right else "left"
        font = {"size": size, "color": colour(ink)}
        self._texts.append(
            (
                top,
                {"text": text, "x": int(right), "xanchor": side, "align": side, "font": font},
            )
        )

    def bands(self, days_end: datetime, broken_at: datetime | None) -> None:
        timeline, place = self.timeline, self.timeline.axis.place
        if timeline.last > days_end:
            self._band(place(days_end), float(timeline.bins), palette.CALM_BAND)
        for span in timeline.faults:
            if span.end is not None or span.lasts:
                end = float(timeline.bins) if span.end is None else place(span.end)
                self._band(place(span.begin), end, palette.FAULT_BAND)
            else:
                self._line(place(span.begin), palette.FAULT_LINE, "dot")
        for change in timeline.axis.changes:
            if change.at <= timeline.last:
                self._line(place(change.at), palette.MUTED, "dash")
        if broken_at is not None:
            self._line(place(broken_at), palette.RED, "solid")

    def _band(self, begin: float, end: float, ink: tuple[str, str]) -> None:
        self.shapes.append(
            {
                "type": "rect",
                "xref": "x",
                "yref": "paper",
                "x0": begin,
                "x1": end,
                "y0": 0,
                "y1": 1,
                "layer": "below",
                "line": {"width": 0},
                "fillcolor": colour(ink),
            }
        )

    def _line(self, at: float, ink: tuple[str, str], dash: str) -> None:
        self.shapes.append(
            {
                "type": "line",
                "xref": "x",
                "yref": "paper",
                "x0": at,
                "x1": at,
                "y0": 0,
                "y1": 1,
                "layer": "below" if dash != "solid" else "above",
                "line": {
                    "width": 2 if dash == "solid" else 1.2,
                    "dash": dash,
                    "color": colour(ink),
                },
            }
        )

    def figure(self) -> graph_objects.Figure:
        layout: dict[str, Any] = {
            "template": None,
            "height": self.height + TOP + BOTTOM,
            "margin": {"l": 40, "r": 8, "t": TOP, "b": BOTTOM},
            "paper_bgcolor": colour(palette.PAPER),
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"family": "system-ui, sans-serif", "color": colour(palette.INK)},
            "showlegend": False,
            "barmode": "stack",
            "bargap": 0,
            "hovermode": "x unified",
            "hoverlabel": {
                "bgcolor": colour(palette.CARD),
                "bordercolor": colour(palette.GRID),
                "font": {"color": colour(palette.INK), "size": 12},
            },
        }
        for number, (row, top) in enumerate(self._rows, start=1):
            name = "" if number == 1 else str(number)
            layout[f"yaxis{name}"] = self._y_axis(row, top)
            for trace in row.traces:
                self.traces.append({**trace, "yaxis": f"y{name}", "xaxis": "x"})
            if row.line_at is not None:
                self.shapes.append(_level(f"y{name}", row.line_at))
        x_axis = {
            "range": [0, self._breadth],
            "showgrid": True,
            "gridcolor": colour(palette.GRID),
            "zeroline": False,
            "tickmode": "array",
            "tickangle": 0,
            "tickfont": {"size": 11, "color": colour(palette.MUTED)},
            # It could only be a number of bins: each strip's text begins with the time.
            "unifiedhovertitle": {"text": " "},
        }
        layout["xaxis"] = {**x_axis, "anchor": "free", "position": 0, "side": "bottom"}
        # The same once more at the top, which nobody has to scroll down for.
        layout["xaxis2"] = {
            **x_axis,
            "anchor": "free",
            "position": 1,
            "side": "top",
            "overlaying": "x",
            "matches": "x",
            "showgrid": False,
        }
        self.traces.append(
            {"x": [0], "y": [None], "xaxis": "x2", "yaxis": "y", "hoverinfo": "skip"}
        )
        layout["annotations"] = [
            {
                **text,
                "xref": "paper",
                "yref": "paper",
                "y": self._share(top),
                "yanchor": "top",
                "showarrow": False,
                "borderpad": 0,
            }
            for top, text in self._texts
        ]
        layout["shapes"] = self.shapes
        return graph_objects.Figure(data=self.traces, layout=layout)

    @property
    def _breadth(self) -> int:
        """Bins on the axis: up to where the run came, but an hour at least."""
        axis = self.timeline.axis
        return max(self.timeline.bins, min(axis.bins, timedelta(hours=1) // axis.width))

    def _y_axis(self, row: Row, top: int) -> dict[str, Any]:
        axis: dict[str, Any] = {
            "anchor": "x",
            "domain": [self._share(top + row.height), self._share(top)],
            "fixedrange": True,
            "zeroline": False,
            "showgrid": False,
        }
        if row.most is None:
            return {**axis, "range": [-1, 1], "showticklabels": False}
        return {
            **axis,
            "range": [0, row.most * 1.08],
            "tickvals": [0, row.most],
            "ticktext": ["0", row.most_text or _figure(row.most)],
            "tickfont": {"size": 11, "color": colour(palette.MUTED)},
            "showgrid": True,
            "gridcolor": colour(palette.GRID),
        }

    def _share(self, pixels: int) -> float:
        return round(min(1.0, max(0.0, 1 - pixels / self.height)), 6)


def _level(axis: str, at: float) -> dict[str, Any]:
    line = {"width": 1, "dash": "dash", "color": colour(palette.MUTED)}
    return {
        "type": "line",
        "xref": "paper",
        "yref": axis,
        "x0": 0,
        "x1": 1,
        "y0": at,
        "y1": at,
        "layer": "below",
        "line": line,
    }


def _figure(value: float) -> str:
    if value >= 10_000:
        return f"{value / 1000:,.0f}k"
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2g}"
