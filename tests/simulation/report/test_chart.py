"""The timeline's panels."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from simulations.report.chart import MOST_LANES, MOST_QUEUES, chart
from simulations.report.timeline import Timeline
from tests.simulation.report.pages import a_timeline, run_a_task


def drawn(timeline: Timeline, *, days_end: datetime | None = None) -> dict[str, Any]:
    timeline.close()
    end = days_end or timeline.axis.end
    figure = chart(timeline, slots=8, days_end=end, broken_at=None).to_plotly_json()
    found: dict[str, Any] = figure
    return found


def texts(figure: dict[str, Any]) -> list[str]:
    return [each["text"] for each in figure["layout"]["annotations"]]


def told(timeline: Timeline, hour: float, fault: str, phase: str) -> None:
    now = timeline.axis.start + timedelta(hours=hour)
    timeline.see(now, "fault", {"fault": fault, "phase": phase})


def test_a_fault_is_a_band_across_all_panels_and_a_strike_is_a_line() -> None:
    timeline = a_timeline()
    told(timeline, 2, "redis-down@02:00/1h", "begin")
    told(timeline, 3, "redis-down@02:00/1h", "end")
    told(timeline, 4, "kill-worker@04:00", "begin")
    shapes = [each for each in drawn(timeline)["layout"]["shapes"] if each["yref"] == "paper"]
    band, line = shapes
    assert (band["type"], band["x0"], band["x1"], band["y0"], band["y1"]) == ("rect", 24, 36, 0, 1)
    assert (line["type"], line["x0"], line["x1"], line["y0"], line["y1"]) == ("line", 48, 48, 0, 1)


def test_a_fault_that_the_run_did_not_outlast_goes_on_to_its_end() -> None:
    timeline = a_timeline()
    told(timeline, 2, "redis-down@02:00/10h", "begin")
    run_a_task(timeline, timeline.axis.start + timedelta(hours=5))
    band = next(each for each in drawn(timeline)["layout"]["shapes"] if each["type"] == "rect")
    assert (band["x0"], band["x1"]) == (24, timeline.bins)


def test_the_repeated_hour_is_two_hours_wide_and_the_change_is_marked() -> None:
    timeline = a_timeline(date(2026, 11, 1))
    for hour in range(25):
        run_a_task(timeline, timeline.axis.start + timedelta(hours=hour), number=hour)
    figure = drawn(timeline)
    runs = next(trace for trace in figure["data"] if trace.get("mode") == "markers")
    assert list(runs["x"]) == [12 * hour for hour in range(25)]
    labels = [label for label, _ in runs["customdata"]]
    assert labels[1:4] == ["Sun 01 Nov 01:00 EDT", "Sun 01 Nov 01:00 EST", "Sun 01 Nov 02:00 EST"]
    change = next(each for each in figure["layout"]["shapes"] if each["line"].get("dash") == "dash")
    assert change["x0"] == 24


def test_the_calm_after_the_days_is_grey() -> None:
    timeline = a_timeline()
    end = datetime(2026, 7, 16, 1, tzinfo=UTC)  # 21:00 in New York
    run_a_task(timeline, timeline.axis.end - timedelta(minutes=1))
    band = next(each for each in drawn(timeline, days_end=end)["layout"]["shapes"])
    assert (band["x0"], band["x1"]) == (21 * 12, 24 * 12)


def test_each_queue_and_entry_has_a_strip_that_says_its_figure() -> None:
    timeline = a_timeline()
    for number in range(3):
        now = timeline.axis.start + timedelta(minutes=number)
        run_a_task(timeline, now, queue="email", entry="hourly", number=number)
    said = texts(drawn(timeline))
    for text in ("hourly", "3 runs", "email", "at most 1", "p99 at most 1 s"):
        assert text in said


def test_queues_in_which_nothing_waits_have_no_strip_of_waits() -> None:
    timeline = a_timeline()
    message = {"task": "t", "id": "1", "queue": "q"}
    for event in ("published", "received"):
        timeline.see(timeline.axis.start, event, message)
    assert "no message waited" in texts(drawn(timeline))


def test_panels_lie_below_each_other_and_do_not_overlap() -> None:
    timeline = a_timeline()
    for number in range(9):
        run_a_task(timeline, timeline.axis.start, queue=f"q{number}", entry=f"e{number}")
    layout = drawn(timeline)["layout"]
    strips = [layout[name]["domain"] for name in layout if name.startswith("yaxis")]
    assert len(strips) == 9 + 9 + 9 + 2
    for above, below in pairwise(strips):
        assert above[0] > below[1] > below[0] >= 0


@pytest.mark.parametrize("number", [200])
def test_of_very_many_the_first_and_the_deepest_are_drawn_and_it_says_so(number: int) -> None:
    timeline = a_timeline()
    for each in range(number):
        run_a_task(timeline, timeline.axis.start, queue=f"q{each}", entry=f"e{each}", number=each)
    said = texts(drawn(timeline))
    assert f"the first {MOST_LANES} of {number}" in said
    assert f"the {MOST_QUEUES} deepest of {number} queues" in said


def test_a_run_in_which_nothing_happens_can_be_drawn() -> None:
    assert drawn(a_timeline())["layout"]["xaxis"]["range"] == [0, 12]


def test_a_run_that_was_stopped_is_drawn_until_there_and_an_hour_at_least() -> None:
    for minutes, breadth in ((5, 12), (90, 19)):
        timeline = a_timeline()
        run_a_task(timeline, timeline.axis.start + timedelta(minutes=minutes))
        assert drawn(timeline)["layout"]["xaxis"]["range"] == [0, breadth]
