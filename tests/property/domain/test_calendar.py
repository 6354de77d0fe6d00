"""Days of a zone against an oracle that reads its clocks minute after minute."""

from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

from hypothesis import given
from hypothesis.strategies import booleans, dates, datetimes, integers, sampled_from

from app.domain.calendar import DAY, MINUTE, day_of, day_span, day_start, next_change

FIRST, LAST = date(2000, 1, 1), date(2037, 12, 31)
FURTHEST = timedelta(hours=30)
"""No zone's midnight is further from that of UTC."""
HOURS_OF_PEOPLE = {23.0, 23.5, 24.0, 24.5, 25.0}
"""Half an hour on Lord Howe Island; research stations change by two hours and more."""

zones = sampled_from(sorted(available_timezones() - {"Factory", "localtime"})).map(ZoneInfo)
inhabited = zones.filter(lambda zone: not zone.key.startswith("Antarctica"))
days = dates(FIRST, LAST)
instants = datetimes(
    datetime.combine(FIRST, time()), datetime.combine(LAST, time()), timezones=sampled_from([UTC])
)


def near_a_change(day: date, zone: ZoneInfo, offset: int) -> date:
    """A day around the first change of the clocks after ``day``; ``day`` where there is none."""
    start = datetime.combine(day, time(), UTC)
    change = next_change(zone, start, start + 400 * DAY)
    return day if change is None else change.date() + offset * DAY


def first_minute_of(day: date, zone: ZoneInfo) -> datetime:
    """The first minute at which the clocks show the date, or a later one."""
    minute = datetime.combine(day, time(), UTC) - FURTHEST
    while minute.astimezone(zone).date() < day:
        minute += MINUTE
    return minute


@given(day=days, zone=zones, near=booleans(), offset=integers(-1, 1))
def test_a_day_begins_when_the_clocks_first_show_it_or_pass_it_over(
    day: date, zone: ZoneInfo, near: bool, offset: int
) -> None:
    day = near_a_change(day, zone, offset) if near else day
    assert day_start(day, zone) == first_minute_of(day, zone)


@given(day=days, zone=zones)
def test_days_follow_each_other_without_a_gap(day: date, zone: ZoneInfo) -> None:
    first = near_a_change(day, zone, -2)
    spans = [day_span(first + number * DAY, zone) for number in range(5)]
    assert all(start <= end for start, end in spans)
    assert all(before[1] == after[0] for before, after in pairwise(spans))


@given(instant=instants, zone=zones, near=booleans())
def test_every_instant_is_in_the_span_of_its_day(
    instant: datetime, zone: ZoneInfo, near: bool
) -> None:
    if near:
        instant = next_change(zone, instant, instant + 400 * DAY) or instant
    start, end = day_span(day_of(instant, zone), zone)
    assert start <= instant < end


@given(day=dates(date(2024, 1, 1), LAST), zone=inhabited, offset=integers(-1, 1))
def test_a_day_where_people_live_has_23_to_25_hours(day: date, zone: ZoneInfo, offset: int) -> None:
    start, end = day_span(near_a_change(day, zone, offset), zone)
    assert (end - start) / timedelta(hours=1) in HOURS_OF_PEOPLE
