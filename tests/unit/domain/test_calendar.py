"""Wall-clock times and the instants that show them."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from app.domain.calendar import (
    WallTimes,
    day_of,
    day_span,
    day_start,
    first_shown,
    next_change,
    wall_clock,
)

EASTERN = ZoneInfo("US/Eastern")
SECOND = timedelta(seconds=1)
EVERY_MONTH = frozenset(range(1, 13))
EVERY_DAY = frozenset(range(1, 32))
EVERY_WEEKDAY = frozenset(range(7))


def at(text: str) -> datetime:
    """A naive wall-clock time."""
    return datetime.fromisoformat(text)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def times(
    minutes: tuple[int, ...] = (0,),
    hours: tuple[int, ...] = (0,),
    days: frozenset[int] = EVERY_DAY,
    months: frozenset[int] = EVERY_MONTH,
    weekdays: frozenset[int] = EVERY_WEEKDAY,
) -> WallTimes:
    return WallTimes(minutes, hours, days, months, weekdays)


@pytest.mark.parametrize(
    ("matching", "start", "first"),
    [
        pytest.param(times((0, 30), (9,)), "2026-07-01 09:00", "2026-07-01 09:00", id="itself"),
        pytest.param(
            times((0, 30), (9,)), "2026-07-01 09:00:00.000001", "2026-07-01 09:30", id="next minute"
        ),
        pytest.param(times((5,), (9, 17)), "2026-07-01 09:06", "2026-07-01 17:05", id="next hour"),
        pytest.param(times((5,), (9,)), "2026-07-01 09:06", "2026-07-02 09:05", id="next day"),
        pytest.param(times(), "2026-12-31 23:59:01", "2027-01-01 00:00", id="next year"),
        pytest.param(
            times(days=frozenset({31})), "2026-01-31 00:01", "2026-03-31 00:00", id="no 31st"
        ),
        pytest.param(
            times(days=frozenset({29}), months=frozenset({2})),
            "2026-01-31 00:00",
            "2028-02-29 00:00",
            id="leap day",
        ),
        pytest.param(
            times(days=frozenset({29}), months=frozenset({2}), weekdays=frozenset({0})),
            "2026-01-31 00:00",
            "2032-02-29 00:00",
            id="leap day on a Sunday",
        ),
        pytest.param(
            times(days=frozenset({29}), months=frozenset({2})),
            "2096-03-01 00:00",
            "2104-02-29 00:00",
            id="2100 has no leap day",
        ),
    ],
)
def test_the_first_time_is_found(matching: WallTimes, start: str, first: str) -> None:
    assert matching.first_from(at(start)) == at(first)


def test_a_date_that_never_comes_is_an_error() -> None:
    with pytest.raises(OverflowError):
        times(days=frozenset({31}), months=frozenset({2})).first_from(at("2026-01-01 00:00"))


@pytest.mark.parametrize(
    ("wall", "shown"),
    [
        pytest.param("2026-07-01 12:00", "2026-07-01 16:00", id="once"),
        pytest.param("2026-11-01 01:30", "2026-11-01 05:30", id="twice"),
        pytest.param("2026-11-01 02:00", "2026-11-01 07:00", id="after the repeated hour"),
        pytest.param("2026-03-08 01:59", "2026-03-08 06:59", id="before the missing hour"),
        pytest.param("2026-03-08 02:00", "2026-03-08 07:00", id="never, the first such"),
        pytest.param("2026-03-08 02:59", "2026-03-08 07:00", id="never, the last such"),
        pytest.param("2026-03-08 03:00", "2026-03-08 07:00", id="after the missing hour"),
    ],
)
def test_a_time_is_shown_first_or_passed_over(wall: str, shown: str) -> None:
    assert first_shown(at(wall), EASTERN) == utc(shown)


def test_a_whole_day_that_a_zone_left_out_is_passed_over_at_its_end() -> None:
    """Samoa went from the 29th to the 31st of December."""
    apia = ZoneInfo("Pacific/Apia")
    shown = first_shown(at("2011-12-30 15:00"), apia)
    assert wall_clock(shown, apia) == at("2011-12-31 00:00")


def test_a_change_is_found_to_the_second() -> None:
    change = utc("2026-11-01 06:00")
    before = change - timedelta(days=200, microseconds=1)
    assert next_change(EASTERN, utc("2026-10-01 00:00:00.5"), utc("2026-12-01 00:00")) == change
    assert next_change(EASTERN, change - timedelta(microseconds=1), change) == change
    assert next_change(EASTERN, change, change + timedelta(days=100)) is None
    assert next_change(EASTERN, before, change) == utc("2026-11-01 06:00")


@pytest.mark.parametrize(
    ("zone", "day", "begins", "hours"),
    [
        pytest.param("US/Eastern", "2026-07-01", "2026-07-01 04:00", 24, id="any"),
        pytest.param("US/Eastern", "2026-03-08", "2026-03-08 05:00", 23, id="put forward"),
        pytest.param("US/Eastern", "2026-11-01", "2026-11-01 04:00", 25, id="put back"),
        pytest.param("Africa/Cairo", "2026-04-24", "2026-04-23 22:00", 23, id="no midnight"),
        pytest.param("America/Havana", "2026-11-01", "2026-11-01 04:00", 25, id="two midnights"),
        pytest.param("Asia/Kolkata", "2026-01-01", "2025-12-31 18:30", 24, id="half an hour"),
        pytest.param("Pacific/Apia", "2011-12-30", "2011-12-30 10:00", 0, id="left out"),
        pytest.param("America/Toronto", "1919-03-31", "1919-03-31 04:30", 23.5, id="over midnight"),
        pytest.param("America/St_Johns", "2010-11-07", "2010-11-07 02:30", 25, id="back over it"),
    ],
)
def test_a_day_begins_at_its_midnight_and_has_its_hours(
    zone: str, day: str, begins: str, hours: float
) -> None:
    start, end = day_span(date.fromisoformat(day), ZoneInfo(zone))
    assert (start, end - start) == (utc(begins), timedelta(hours=hours))


def test_what_the_clocks_show_again_of_the_day_before_belongs_to_the_new_day() -> None:
    """St. John's put its clocks back at a minute past midnight."""
    zone = ZoneInfo("America/St_Johns")
    instant = utc("2010-11-07 03:00")
    assert wall_clock(instant, zone) == at("2010-11-06 23:30")
    assert day_of(instant, zone) == date(2010, 11, 7)
    assert day_of(day_start(date(2010, 11, 7), zone) - SECOND, zone) == date(2010, 11, 6)
