"""The timeline as a Plotly figure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from math import log10

from plotly import graph_objects

from simulations.report import palette
from simulations.report.drawing import (
    LANE_HEIGHT,
    TIME_AND_TEXT,
    WIDE_ROW_HEIGHT,
    Drawing,
    Panel,
    Row,
    Trace,
    colour,
    shown,
)
from simulations.report.timeline import Timeline

MOST_LANES = 30
MOST_QUEUES = 10
SHORTEST_WAIT = 0.001
"""Seconds: a queue in which nothing waited longer has no row."""


def chart(
    timeline: Timeline, *, slots: int, days_end: datetime, broken_at: datetime | None
) -> graph_objects.Figure:
    """Draw what ``timeline`` saw.

    ``slots`` is how many there are, ``days_end`` when the calm begins.
    """
    panels = [
        panel
        for panel in (
            _faults(timeline),
            _beat(timeline),
            _depths(timeline),
            _waits(timeline),
            _slots(timeline, slots),
            _tasks(timeline),
            _mails(timeline),
        )
        if panel.rows or panel.about
    ]
    drawn = Drawing(timeline)
    for panel in panels:
        drawn.add(panel)
    drawn.bands(days_end, broken_at)
    return drawn.figure()


def _faults(timeline: Timeline) -> Panel:
    axis = timeline.axis
    panel = Panel("Faults")
    kinds = dict.fromkeys(span.kind for span in timeline.faults)
    for kind in kinds:
        spans = [span for span in timeline.faults if span.kind == kind]
        traces = []
        for span in spans:
            instants = [span.begin]
            if span.end is not None or span.lasts:
                instants.append(span.end or timeline.last)
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers" if len(instants) > 1 else "markers",
                    "x": [axis.place(instant) for instant in instants],
                    "y": [0] * len(instants),
                    "customdata": [
                        [axis.label(instant), shown(span.fault)] for instant in instants
                    ],
                    "hovertemplate": TIME_AND_TEXT,
                    "line": {"width": 6, "color": colour(palette.ORANGE)},
                    "marker": {"symbol": "diamond", "size": 9, "color": colour(palette.ORANGE)},
                }
            )
        count = "once" if len(spans) == 1 else f"{len(spans)} times"
        panel.rows.append(Row(traces, kind, count, LANE_HEIGHT))
    return panel


def _beat(timeline: Timeline) -> Panel:
    axis = timeline.axis
    names = sorted(timeline.beat)
    panel = Panel("Beat entries")
    if len(names) > MOST_LANES:
        panel.about = f"the first {MOST_LANES} of {len(names)}"
    for name in names[:MOST_LANES]:
        marks = list(timeline.beat[name].values())
        runs = sum(mark.runs for mark in marks)
        trace = {
            "type": "scatter",
            "mode": "markers",
            "x": [axis.place(mark.first) for mark in marks],
            "y": [0] * len(marks),
            "customdata": [[axis.label(mark.first), _runs(mark.runs)] for mark in marks],
            "hovertemplate": TIME_AND_TEXT,
            "marker": {
                "symbol": "line-ns-open",
                "size": 12,
                "color": colour(palette.BLUE),
                "line": {"width": 1.6, "color": colour(palette.BLUE)},
            },
        }
        panel.rows.append(Row([trace], name, _runs(runs), LANE_HEIGHT))
    return panel


def _runs(runs: int) -> str:
    return "1 run" if runs == 1 else f"{runs:,} runs"


def _busiest(timeline: Timeline) -> list[str]:
    def depth(queue: str) -> int:
        return max(timeline.depth[queue].until(timeline.bins - 1), default=0)

    return sorted(timeline.depth, key=lambda queue: (-depth(queue), queue))[:MOST_QUEUES]


def _depths(timeline: Timeline) -> Panel:
    panel = Panel("Messages waiting", "the most in each bin")
    queues = _busiest(timeline)
    if len(timeline.depth) > len(queues):
        panel.about = f"the {len(queues)} deepest of {len(timeline.depth)} queues"
    peaks = {queue: timeline.depth[queue].until(timeline.bins - 1) for queue in queues}
    # One scale for all: a short queue must not look like a long one.
    most = max((max(each) for each in peaks.values()), default=1) or 1
    for queue, each in peaks.items():
        panel.rows.append(Row([_area(each, "waiting")], queue, f"at most {max(each):,}", most=most))
    return panel


def _waits(timeline: Timeline) -> Panel:
    panel = Panel("Waits", "p50 full, p99 pale; logarithmic")
    queues = [
        queue
        for queue in _busiest(timeline)
        if any(p99 >= SHORTEST_WAIT for _, p99 in timeline.waits.get(queue, {}).values())
    ]
    if not queues:
        return Panel("Waits", "no message waited")
    found = [timeline.waits[queue] for queue in queues]
    most = _round_up(max((p99 for waits in found for _, p99 in waits.values()), default=0.0))
    for queue, waits in zip(queues, found, strict=True):
        bins = sorted(waits)
        p50s, p99s = ([waits[bin_][part] for bin_ in bins] for part in (0, 1))
        lower, upper = [_scaled(each) for each in p50s], [_scaled(each) for each in p99s]
        above = [round(high - low, 4) for low, high in zip(lower, upper, strict=True)]
        said = [
            f"p50 {_duration(p50)}, p99 {_duration(p99)}"
            for p50, p99 in zip(p50s, p99s, strict=True)
        ]
        row = Row(
            [
                _bars(bins, lower, palette.BLUE, said),
                _bars(bins, above, palette.PALE_BLUE),
            ],
            queue,
            f"p99 at most {_duration(max(p99s))}",
            most=_scaled(most),
            most_text=_duration(most),
        )
        panel.rows.append(row)
    return panel


def _scaled(seconds: float) -> float:
    """Logarithmic, and 0 for no wait: milliseconds are to be seen beside an outage's minutes."""
    return round(log10(1 + 10 * seconds), 4)


def _round_up(value: float) -> float:
    """To a figure that is short to write; 1 s at least, so that milliseconds look like few."""
    if value <= 1:
        return 1
    step = 10 ** (len(str(int(value))) - 1)
    return float(-(-value // step) * step)


def _duration(seconds: float) -> str:
    if seconds >= 600:
        return f"{seconds / 60:,.0f} min"
    if seconds >= 10:
        return f"{seconds:,.0f} s"
    return f"{seconds:.2g} s" if seconds >= 1 else f"{1000 * seconds:,.0f} ms"


def _slots(timeline: Timeline, slots: int) -> Panel:
    peaks = timeline.slots.until(timeline.bins - 1)
    row = Row(
        [_area(peaks, "in use")],
        height=WIDE_ROW_HEIGHT,
        most=max(slots, *peaks, 1),
        line_at=slots,
    )
    return Panel("Slots in use", f"the most in each bin, of {slots}", [row])


def _tasks(timeline: Timeline) -> Panel:
    inks = {"done": palette.BLUE, "retried": palette.ORANGE, "failed": palette.RED}
    return _stacked("Tasks ended", timeline.ended, inks)


def _mails(timeline: Timeline) -> Panel:
    kinds = {"sent": timeline.mails, "sent again": timeline.mails_again}
    inks = {"sent": palette.GREEN, "sent again": palette.RED}
    return _stacked("Mails", kinds, inks)


def _stacked(
    title: str, kinds: dict[str, dict[int, int]], inks: dict[str, tuple[str, str]]
) -> Panel:
    found = {kind: counts for kind, counts in kinds.items() if counts}
    if not found:
        return Panel(title)
    bins = sorted({bin_ for counts in found.values() for bin_ in counts})
    heights = {kind: [counts.get(bin_, 0) for bin_ in bins] for kind, counts in found.items()}
    most = max(map(sum, zip(*heights.values(), strict=True)))
    names = " ".join(
        f"<span style='color:{colour(inks[kind])}'>■</span> {kind} {sum(counts):,}"
        for kind, counts in heights.items()
    )
    said = [
        ", ".join(f"{kind} {heights[kind][place]:,}" for kind in heights)
        for place in range(len(bins))
    ]
    traces = [
        _bars(bins, counts, inks[kind], said if place == 0 else None)
        for place, (kind, counts) in enumerate(heights.items())
    ]
    return Panel(title, names, [Row(traces, height=WIDE_ROW_HEIGHT, most=most)])


def _area(peaks: Iterable[int], what: str) -> Trace:
    values = list(peaks)
    # Once more at the end, so that the last bin has its breadth.
    values.append(values[-1])
    return {
        "type": "scatter",
        "mode": "lines",
        "x": list(range(len(values))),
        "y": values,
        "meta": "bins",
        "customdata": [f"{each:,} {what}" for each in values],
        "hovertemplate": TIME_AND_TEXT,
        "line": {"shape": "hv", "width": 1.3, "color": colour(palette.BLUE)},
        "fill": "tozeroy",
        "fillcolor": colour(palette.PALE_BLUE),
    }


def _bars(
    bins: Sequence[int],
    heights: Sequence[float],
    ink: tuple[str, str],
    said: Sequence[str] | None = None,
) -> Trace:
    bars: Trace = {
        "type": "bar",
        "x": [bin_ + 0.5 for bin_ in bins],
        "y": list(heights),
        "width": 1,
        "marker": {"color": colour(ink), "line": {"width": 0}},
    }
    if said is None:
        return {**bars, "hoverinfo": "skip"}
    return {**bars, "meta": "bins", "customdata": list(said), "hovertemplate": TIME_AND_TEXT}
