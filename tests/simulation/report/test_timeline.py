"""What the observer behind a report adds up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from simulations.report.axis import LocalAxis
from simulations.report.timeline import Timeline

START = datetime(2026, 7, 15, tzinfo=UTC)
BIN = timedelta(minutes=5)


def a_timeline() -> Timeline:
    return Timeline(LocalAxis(START, START + timedelta(days=1), ZoneInfo("UTC")))


def at(bin_: float) -> datetime:
    return START + bin_ * BIN


def published(timeline: Timeline, bin_: float, *ids: str, queue: str = "email") -> None:
    for each in ids:
        timeline.see(at(bin_), "published", {"task": "t", "id": each, "queue": queue})


def received(timeline: Timeline, bin_: float, *ids: str, queue: str = "email") -> None:
    for each in ids:
        timeline.see(at(bin_), "received", {"task": "t", "id": each, "queue": queue})


def depths(timeline: Timeline, queue: str = "email") -> list[int]:
    return timeline.depth[queue].until(timeline.bins - 1)


def test_depth_is_the_most_in_each_bin_and_stays_where_nothing_happens() -> None:
    timeline = a_timeline()
    published(timeline, 1, "a", "b", "c")
    received(timeline, 1.5, "a")
    received(timeline, 4, "b", "c")
    published(timeline, 5, "d")
    assert depths(timeline) == [0, 3, 2, 2, 2, 1]


def test_an_emptied_broker_has_no_messages() -> None:
    timeline = a_timeline()
    published(timeline, 0, "a", "b")
    timeline.see(at(1), "emptied", {})
    received(timeline, 1.1, "a")  # it was on its way
    published(timeline, 2, "c")
    assert depths(timeline) == [2, 2, 1]


def test_waits_are_the_percentiles_of_the_bin_in_which_messages_were_received() -> None:
    timeline = a_timeline()
    ids = [str(number) for number in range(100)]
    published(timeline, 0, *ids)
    received(timeline, 0.5, *ids[:90])
    received(timeline, 2, *ids[90:])
    timeline.close()
    assert timeline.waits["email"] == {0: (150.0, 150.0), 2: (600.0, 600.0)}


def test_a_killed_worker_has_no_slot_in_use() -> None:
    timeline = a_timeline()
    for worker, task in (("w1", "a"), ("w1", "b"), ("w2", "c")):
        timeline.see(at(0), "started", {"task": "t", "id": task, "worker": worker})
    timeline.see(at(1.5), "killed", {"worker": "w1"})
    timeline.see(at(2.5), "killed", {"beat": "beat1"})
    timeline.see(at(3), "succeeded", {"task": "t", "id": "c", "worker": "w2"})
    timeline.see(at(4), "beat", {"entry": "e"})
    assert timeline.slots.until(timeline.bins - 1) == [3, 3, 1, 1, 0]
    assert timeline.ended["done"] == {3: 1}


def test_runs_of_an_entry_are_marked_where_the_first_of_each_bin_was() -> None:
    timeline = a_timeline()
    for minute in range(7):
        timeline.see(START + timedelta(minutes=minute, seconds=1), "beat", {"entry": "each minute"})
    first, second = timeline.beat["each minute"].values()
    assert (first.runs, second.runs) == (5, 2)
    assert first.first == START + timedelta(seconds=1)


def test_mails_that_went_out_again_are_counted_apart() -> None:
    timeline = a_timeline()
    for copy in (1, 1, 2):
        timeline.see(at(7), "mail", {"mail": "m", "copy": copy})
    assert (timeline.mails, timeline.mails_again) == ({7: 2}, {7: 1})


def test_a_fault_lasts_from_its_begin_to_its_own_end() -> None:
    timeline = a_timeline()
    for bin_, fault, phase in (
        (1, "redis-down@00:05/10m", "begin"),
        (2, "smtp-down@00:10/1h", "begin"),
        (3, "redis-down@00:05/10m", "end"),
        (4, "kill-worker@00:20", "begin"),
    ):
        timeline.see(at(bin_), "fault", {"fault": fault, "phase": phase})
    spans = [(span.kind, span.begin, span.end, span.lasts) for span in timeline.faults]
    assert spans == [
        ("redis-down", at(1), at(3), True),
        ("smtp-down", at(2), None, True),
        ("kill-worker", at(4), None, False),
    ]


def test_what_it_holds_grows_with_the_bins_and_not_with_the_events() -> None:
    timeline = a_timeline()
    for number in range(20_000):
        now = START + timedelta(seconds=4 * number)
        task = {"task": "t", "id": str(number), "queue": "q", "worker": "w"}
        for event in ("published", "received", "started", "succeeded"):
            timeline.see(now, event, task)
        timeline.see(now, "beat", {"entry": "e"})
    held = (timeline.beat["e"], timeline.waits["q"], timeline.ended["done"], depths(timeline, "q"))
    assert [len(each) for each in held] == [267, 266, 267, 267]
    assert timeline.bins == 267
    assert not timeline._since
    assert not timeline._at_work["w"]


def test_what_comes_after_the_axis_is_in_its_last_bin() -> None:
    timeline = a_timeline()
    published(timeline, 288, "a")
    published(timeline, 300, "b")
    assert timeline.bins == timeline.axis.bins == 288
    assert depths(timeline)[-1] == 2
