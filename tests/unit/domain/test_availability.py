"""Working hours on the days that property tests could leave unexplained."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from app.domain.availability import (
    AvailabilityChange,
    DateException,
    Span,
    WeeklyWindow,
    WorkingHours,
    WrongHoursError,
    free_slots,
    is_open,
    open_spans,
)

EASTERN = ZoneInfo("US/Eastern")
SPRING = date(2026, 3, 8)
AUTUMN = date(2026, 11, 1)
SUNDAY = 6
HOUR = timedelta(hours=1)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def span(start: str, end: str) -> Span:
    return Span(utc(start), utc(end))


def on_sundays(*hours: tuple[int, int], zone: ZoneInfo = EASTERN) -> WorkingHours:
    return WorkingHours(
        zone, tuple(WeeklyWindow(SUNDAY, start * 60, end * 60) for start, end in hours), ()
    )


def hourly(hours: WorkingHours, day: date) -> list[Span]:
    return free_slots(hours, [], day, day, length=HOUR, step=HOUR)


def test_a_window_over_the_repeated_hour_is_an_hour_longer() -> None:
    from_one_to_two = on_sundays((1, 2))
    assert hourly(from_one_to_two, AUTUMN) == [
        span("2026-11-01 05:00", "2026-11-01 06:00"),
        span("2026-11-01 06:00", "2026-11-01 07:00"),
    ]


def test_a_window_in_the_hour_left_out_is_empty_and_one_around_it_an_hour_shorter() -> None:
    assert hourly(on_sundays((2, 3)), SPRING) == []
    assert hourly(on_sundays((1, 4)), SPRING) == [
        span("2026-03-08 06:00", "2026-03-08 07:00"),
        span("2026-03-08 07:00", "2026-03-08 08:00"),
    ]


def test_a_date_that_a_zone_left_out_has_no_slots() -> None:
    """Samoa went from 29 December 2011 to the 31st."""
    every_day = tuple(WeeklyWindow(weekday, 0, 1440) for weekday in range(7))
    samoa = WorkingHours(ZoneInfo("Pacific/Apia"), every_day, ())
    assert open_spans(samoa, date(2011, 12, 30), date(2011, 12, 30)) == []
    assert open_spans(samoa, date(2011, 12, 29), date(2011, 12, 31)) == [
        span("2011-12-29 10:00", "2011-12-31 10:00")
    ]


def test_windows_that_meet_at_midnight_are_one() -> None:
    late = WorkingHours(EASTERN, (WeeklyWindow(5, 1380, 1440), WeeklyWindow(6, 0, 60)), ())
    assert is_open(late, span("2026-07-05 03:30", "2026-07-05 04:30"))


def test_blocked_wins_over_extra_and_weekly_hours() -> None:
    def on_that_day(change: AvailabilityChange, start: int, end: int) -> DateException:
        return DateException(date(2026, 7, 5), change, start * 60, end * 60)

    hours = WorkingHours(
        EASTERN,
        (WeeklyWindow(SUNDAY, 9 * 60, 11 * 60),),
        (
            on_that_day(AvailabilityChange.EXTRA, 10, 13),
            on_that_day(AvailabilityChange.BLOCKED, 10, 12),
        ),
    )
    assert hourly(hours, date(2026, 7, 5)) == [
        span("2026-07-05 13:00", "2026-07-05 14:00"),
        span("2026-07-05 16:00", "2026-07-05 17:00"),
    ]


def test_starts_are_on_the_wall_clocks_grid_whatever_the_window() -> None:
    from_ten_past = WorkingHours(ZoneInfo("Asia/Kathmandu"), (WeeklyWindow(SUNDAY, 550, 660),), ())
    starts = [
        slot.start.astimezone(from_ten_past.zone).strftime("%H:%M")
        for slot in free_slots(
            from_ten_past,
            [],
            date(2026, 7, 5),
            date(2026, 7, 5),
            length=HOUR,
            step=timedelta(minutes=15),
        )
    ]
    assert starts == ["09:15", "09:30", "09:45", "10:00"]


def test_without_any_window_nothing_is_open() -> None:
    assert not is_open(on_sundays(), span("2026-07-05 14:00", "2026-07-05 15:00"))


@pytest.mark.parametrize(
    ("weekday", "start", "end"),
    [(7, 0, 60), (-1, 0, 60), (0, -1, 60), (0, 60, 60), (0, 61, 60), (0, 0, 1441)],
)
def test_a_window_that_cannot_be_is_refused(weekday: int, start: int, end: int) -> None:
    with pytest.raises(WrongHoursError):
        WeeklyWindow(weekday, start, end)


def test_an_exception_that_cannot_be_is_refused() -> None:
    with pytest.raises(WrongHoursError, match="from minute 600 to minute 540"):
        DateException(SPRING, AvailabilityChange.BLOCKED, 600, 540)
