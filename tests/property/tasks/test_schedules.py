"""Our crontab against an oracle that reads the clock minute after minute.

``python -m scripts.prove_dst`` does the same for every zone and every change.
"""

from datetime import UTC, datetime, timedelta
from functools import cache
from random import Random
from zoneinfo import ZoneInfo

import pytest
from celery import schedules
from hypothesis import given, settings
from hypothesis.strategies import datetimes, integers, randoms, sampled_from

from app.tasks.due import next_due
from app.tasks.schedules import crontab
from scripts.prove_dst import (
    AROUND,
    changes,
    drawn_fields,
    due_instants,
    first_wrong,
    in_zone,
    questions,
    read_clock,
)

ZONES = (
    "US/Eastern",
    "Africa/Cairo",  # leaves out the hour after midnight
    "Africa/Casablanca",  # around Ramadan
    "Africa/El_Aaiun",
    "America/Havana",  # repeats the hour after midnight
    "America/Nuuk",  # changes on Saturday evening
    "America/Santiago",  # repeats the hour before midnight
    "Antarctica/Troll",  # two hours
    "Asia/Gaza",
    "Australia/Lord_Howe",  # half an hour
    "Europe/Dublin",  # winter time is its exception
    "Pacific/Chatham",  # at a quarter to
)

NEAREST = 150
"""As many questions are asked of a timetable, those nearest to the change."""


@cache
def changes_of(name: str) -> list[datetime]:
    return changes(ZoneInfo(name), 2024, 2027)


@pytest.mark.parametrize("name", ZONES)
@settings(max_examples=12, deadline=None)
@given(rng=randoms(use_true_random=False))
def test_around_a_change_it_is_due_when_the_clock_says_so(name: str, rng: Random) -> None:
    zone = ZoneInfo(name)
    change = rng.choice(changes_of(name))
    clock = read_clock(zone, change - AROUND, change + AROUND)
    fields = drawn_fields(rng, clock)
    asked = sorted(
        questions(rng, due_instants(fields, clock), clock), key=lambda asked: abs(asked[0] - change)
    )
    assert first_wrong(in_zone(crontab, fields, zone), asked[:NEAREST], change + AROUND) is None


@settings(max_examples=40, deadline=None)
@given(
    rng=randoms(use_true_random=False),
    after=datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1)),  # noqa: DTZ001
    offset=integers(-12, 14),
)
def test_where_no_clock_is_changed_it_answers_as_celerys_does(
    rng: Random, after: datetime, offset: int
) -> None:
    zone = ZoneInfo(f"Etc/GMT{-offset:+}")
    now = after.replace(tzinfo=UTC)
    fields = drawn_fields(rng, read_clock(zone, now - AROUND, now + AROUND))
    ours, celerys = (in_zone(kind, fields, zone) for kind in (crontab, schedules.crontab))
    assert next_due(ours, now) == next_due(celerys, now)


@settings(max_examples=40, deadline=None)
@given(
    name=sampled_from(ZONES),
    rng=randoms(use_true_random=False),
    after=datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1)),  # noqa: DTZ001
    earlier=integers(1, 10**12),
)
def test_asking_earlier_never_gives_a_later_answer(
    name: str, rng: Random, after: datetime, earlier: int
) -> None:
    zone, now = ZoneInfo(name), after.replace(tzinfo=UTC)
    timetable = in_zone(
        crontab, drawn_fields(rng, read_clock(zone, now - AROUND, now + AROUND)), zone
    )
    due = next_due(timetable, now)
    assert due > now
    assert next_due(timetable, due - timedelta(microseconds=1)) == due
    assert next_due(timetable, now - timedelta(microseconds=earlier)) <= due
