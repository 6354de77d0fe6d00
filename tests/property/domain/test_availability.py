"""Free slots against an oracle that reads the clock minute after minute of UTC."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis.strategies import (
    DrawFn,
    composite,
    dates,
    integers,
    lists,
    sampled_from,
    sets,
)

from app.domain.availability import (
    AvailabilityChange,
    DateException,
    Span,
    WeeklyWindow,
    WorkingHours,
    free_slots,
    is_open,
    open_spans,
)
from scripts.prove_dst import changes

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
MINUTES_OF_A_DAY = 1440

ZONES = (
    "US/Eastern",
    "Africa/Cairo",  # leaves out the hour after midnight
    "Africa/Casablanca",  # around Ramadan
    "America/Havana",  # repeats the hour after midnight
    "America/Nuuk",  # changes on Saturday evening
    "America/Santiago",  # repeats the hour before midnight
    "Antarctica/Troll",  # two hours
    "Asia/Gaza",
    "Asia/Kathmandu",  # a quarter to
    "Australia/Lord_Howe",  # half an hour
    "Europe/Dublin",  # winter time is its exception
    "Pacific/Apia",
    "Pacific/Chatham",  # at a quarter to
    "Pacific/Kiritimati",  # the first to see a day
    "UTC",
)

NO_CHANGE = [datetime(2026, 6, 3, 12, tzinfo=UTC)]
"""Stands for the changes of a zone that has none."""


@cache
def changes_of(name: str) -> list[datetime]:
    return changes(ZoneInfo(name), 2024, 2027) or NO_CHANGE


@dataclass(frozen=True)
class Week:
    """All that free slots are made from."""

    hours: WorkingHours
    taken: list[Span]
    first: date
    last: date
    length: timedelta
    step: timedelta

    @property
    def zone(self) -> ZoneInfo:
        assert isinstance(self.hours.zone, ZoneInfo)
        return self.hours.zone

    def slots(self) -> list[Span]:
        return free_slots(
            self.hours, self.taken, self.first, self.last, length=self.length, step=self.step
        )

    def clock(self) -> Iterator[tuple[datetime, datetime]]:
        """Each minute of UTC that may be in the range, and what the wall clock shows then."""
        instant = datetime.combine(self.first, time(), UTC) - DAY
        while instant < datetime.combine(self.last, time(), UTC) + 2 * DAY:
            wall = instant.astimezone(self.zone).replace(tzinfo=None)
            if self.first <= wall.date() <= self.last:
                yield instant, wall
            instant += MINUTE

    def teaches_at(self, wall: datetime) -> bool:
        minute = wall.hour * 60 + wall.minute
        today = [each for each in self.hours.exceptions if each.date == wall.date()]
        kinds = {each.change for each in today if each.starts_minute <= minute < each.ends_minute}
        weekly = any(
            window.weekday == wall.weekday() and window.starts_minute <= minute < window.ends_minute
            for window in self.hours.windows
        )
        return AvailabilityChange.BLOCKED not in kinds and (
            weekly or AvailabilityChange.EXTRA in kinds
        )

    def is_taken(self, instant: datetime) -> bool:
        return any(span.start <= instant < span.end for span in self.taken)


def minute_spans(draw: DrawFn) -> tuple[int, int]:
    edges = draw(sets(integers(0, MINUTES_OF_A_DAY), min_size=2, max_size=2))
    return min(edges), max(edges)


@composite
def windows(draw: DrawFn) -> WeeklyWindow:
    return WeeklyWindow(draw(integers(0, 6)), *minute_spans(draw))


@composite
def weeks(draw: DrawFn, zone_names: tuple[str, ...] = ZONES) -> Week:
    """Working hours and bookings around a change of the clocks, or on any other day."""
    name = draw(sampled_from(zone_names))
    change = draw(sampled_from(changes_of(name)))
    anywhere = dates(date(2024, 1, 1), date(2027, 12, 31))
    middle = draw(sampled_from([change.astimezone(ZoneInfo(name)).date(), draw(anywhere)]))
    first = middle - draw(integers(0, 1)) * DAY
    last = middle + draw(integers(0, 1)) * DAY
    midnight = datetime.combine(middle, time(), UTC)
    taken = []
    for start in draw(lists(integers(-1440, 3 * 1440), max_size=4)):
        begins = midnight + start * MINUTE
        taken.append(Span(begins, begins + draw(integers(1, 300)) * MINUTE))
    exceptions = [
        DateException(
            draw(sampled_from([first, middle, last])),
            draw(sampled_from(AvailabilityChange)),
            *minute_spans(draw),
        )
        for _ in range(draw(integers(0, 3)))
    ]
    return Week(
        WorkingHours(ZoneInfo(name), tuple(draw(lists(windows(), max_size=8))), tuple(exceptions)),
        taken,
        first,
        last,
        length=draw(integers(1, 180)) * MINUTE,
        step=draw(sampled_from([5, 15, 30, 60, 90])) * MINUTE,
    )


@settings(max_examples=150, deadline=None)
@given(week=weeks())
def test_the_slots_are_all_that_reading_the_clock_finds_and_no_others(week: Week) -> None:
    clock = list(week.clock())
    free = {
        instant for instant, wall in clock if week.teaches_at(wall) and not week.is_taken(instant)
    }
    minutes = range(week.length // MINUTE)
    expected = [
        Span(instant, instant + week.length)
        for instant, wall in clock
        if (wall.hour * 60 + wall.minute) % (week.step // MINUTE) == 0
        and all(instant + n * MINUTE in free for n in minutes)
    ]
    assert week.slots() == expected


@settings(max_examples=100, deadline=None)
@given(week=weeks())
def test_no_slot_overlaps_a_booking(week: Week) -> None:
    for slot in week.slots():
        assert all(slot.end <= span.start or span.end <= slot.start for span in week.taken)


@settings(max_examples=100, deadline=None)
@given(week=weeks())
def test_every_minute_of_a_slot_is_one_in_which_the_instructor_teaches(week: Week) -> None:
    for slot in week.slots():
        for passed in range(week.length // MINUTE):
            wall = (slot.start + passed * MINUTE).astimezone(week.zone)
            assert week.teaches_at(wall.replace(tzinfo=None))


@settings(max_examples=100, deadline=None)
@given(week=weeks())
def test_a_slot_is_never_in_a_gap_hour(week: Week) -> None:
    """A wall time that the clocks leave out does not survive the way to UTC and back."""
    for slot in week.slots():
        assert slot.start.tzinfo is UTC
        shown = slot.start.astimezone(week.zone)
        written = shown.replace(tzinfo=None).replace(tzinfo=week.zone, fold=shown.fold)
        assert written.astimezone(UTC) == slot.start


@settings(max_examples=100, deadline=None)
@given(week=weeks())
def test_each_slot_can_be_booked(week: Week) -> None:
    for slot in week.slots():
        assert is_open(week.hours, slot)


@settings(max_examples=100, deadline=None)
@given(week=weeks(), start=integers(-200, 3000), minutes=integers(1, 300))
def test_a_lesson_is_inside_where_each_of_its_minutes_is(
    week: Week, start: int, minutes: int
) -> None:
    begins = datetime.combine(week.first, time(), UTC) + start * MINUTE
    instants = [begins + n * MINUTE for n in range(minutes)]
    walls = [instant.astimezone(week.zone).replace(tzinfo=None) for instant in instants]
    lesson = Span(begins, begins + minutes * MINUTE)
    assert is_open(week.hours, lesson) == all(week.teaches_at(wall) for wall in walls)


@settings(max_examples=50, deadline=None)
@given(week=weeks())
def test_open_spans_are_in_order_and_never_touch(week: Week) -> None:
    spans = open_spans(week.hours, week.first, week.last)
    assert all(span.start < span.end for span in spans)
    assert all(one.end < other.start for one, other in itertools.pairwise(spans))


@given(week=weeks(), step=integers(-10, 3000))
def test_a_step_that_does_not_divide_the_day_is_refused(week: Week, step: int) -> None:
    assume(step <= 0 or MINUTES_OF_A_DAY % step)
    with pytest.raises(ValueError, match="divide"):
        free_slots(week.hours, [], week.first, week.last, length=week.length, step=step * MINUTE)
