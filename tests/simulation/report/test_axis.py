"""The axis of time under a report, also on days on which the clocks change."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest

from simulations.report.axis import MOST_BINS, LocalAxis

NEW_YORK = ZoneInfo("America/New_York")


def axis_of(day: date, *, days: int = 1, zone: ZoneInfo = NEW_YORK) -> LocalAxis:
    start, end = (
        datetime.combine(each, time(), zone).astimezone(UTC)
        for each in (day, day + timedelta(days=days))
    )
    return LocalAxis(start, end, zone)


def hourly(axis: LocalAxis) -> dict[str, float]:
    level = next(level for level in axis.tick_levels() if level["minutes"] == 60)
    return dict(zip(level["text"], level["at"], strict=True))


@pytest.mark.parametrize("days", [1, 2, 7, 30, 400])
def test_however_long_the_run_there_are_at_most_so_many_bins(days: int) -> None:
    axis = axis_of(date(2026, 1, 1), days=days)
    assert axis.bins <= MOST_BINS
    assert axis.width * axis.bins >= axis.end - axis.start


@pytest.mark.parametrize("days", [1, 400])
def test_some_level_of_ticks_fits_a_phone(days: int) -> None:
    levels = axis_of(date(2026, 1, 1), days=days).tick_levels()
    assert min(len(level["at"]) for level in levels) <= 8
    assert max(len(level["at"]) for level in levels) <= 800


def test_the_hour_that_comes_twice_is_on_the_axis_twice() -> None:
    axis = axis_of(date(2026, 11, 1))
    ticks = hourly(axis)
    an_hour = timedelta(hours=1) / axis.width
    assert axis.end - axis.start == timedelta(hours=25)
    assert ticks["01:00<br>EST"] - ticks["01:00<br>EDT"] == an_hour
    assert ticks["02:00"] - ticks["01:00<br>EST"] == an_hour
    assert [change.at for change in axis.changes] == [datetime(2026, 11, 1, 6, tzinfo=UTC)]
    assert "back from 02:00 EDT to 01:00 EST" in axis.changes[0].what
    labels = axis.bin_labels()
    assert labels.count("Sun 01 Nov 01:30 EDT") == labels.count("Sun 01 Nov 01:30 EST") == 1


def test_the_hour_that_is_missing_is_not_on_the_axis() -> None:
    axis = axis_of(date(2026, 3, 8))
    ticks = hourly(axis)
    assert axis.end - axis.start == timedelta(hours=23)
    assert not any(text.startswith("02:00") for text in ticks)
    assert ticks["03:00<br>EDT"] - ticks["01:00"] == timedelta(hours=1) / axis.width
    assert "forward from 02:00 EST to 03:00 EDT" in axis.changes[0].what


def test_the_change_has_a_tick_also_where_ticks_are_hours_apart() -> None:
    for level in axis_of(date(2026, 11, 1)).tick_levels():
        if level["minutes"] <= 180:
            assert "01:00<br>EST" in level["text"]


def test_on_a_plain_day_no_label_names_the_zone() -> None:
    axis = axis_of(date(2026, 7, 15))
    assert axis.changes == []
    assert axis.bin_labels()[1] == "Wed 15 Jul 00:05"


def test_half_hours_of_offset_and_of_change_are_right() -> None:
    lord_howe = axis_of(date(2026, 4, 5), zone=ZoneInfo("Australia/Lord_Howe"))
    assert lord_howe.end - lord_howe.start == timedelta(hours=24, minutes=30)
    assert "the 30 minutes in between are on it twice" in lord_howe.changes[0].what
    assert hourly(axis_of(date(2026, 7, 15), zone=ZoneInfo("Asia/Kolkata")))["06:00"] == 72
