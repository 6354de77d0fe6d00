"""When an entry is due next: always strictly later, and the same for every beat."""

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery import schedules
from celery.schedules import crontab, schedule
from hypothesis import given, settings
from hypothesis.strategies import datetimes, just, timedeltas

from app.tasks import celery_app
from app.tasks.celery_config import BEAT_SCHEDULE
from app.tasks.due import next_due
from tests.unit.tasks.own_schedules import Backwards, EveryOtherHour, Late, OwnClock, Stuck

EASTERN = ZoneInfo("US/Eastern")
NOON = datetime(2026, 7, 1, 12, tzinfo=EASTERN)
SECOND = timedelta(seconds=1)
MICROSECOND = timedelta(microseconds=1)


def cron(**fields: Any) -> crontab:
    """A crontab in the schedule's time zone, as beat makes it an entry's."""
    return crontab(**fields, app=celery_app)


def instants(timetable: Any, after: datetime, count: int) -> list[datetime]:
    def walk() -> Any:
        due = after
        while True:
            due = next_due(timetable, due)
            yield due

    return list(islice(walk(), count))


@pytest.fixture(autouse=True)
def _in_us_eastern() -> None:
    assert str(celery_app.timezone) == "US/Eastern"


@pytest.mark.parametrize("seconds", [1, 7, 60, 90, 0.25, 86_400])
def test_an_interval_is_due_at_the_multiples_of_its_length_since_the_epoch(seconds: float) -> None:
    due = next_due(schedule(timedelta(seconds=seconds)), NOON)
    assert due.timestamp() % seconds == 0
    assert timedelta(0) < due - NOON <= timedelta(seconds=seconds)


@settings(max_examples=200)
@given(
    length=timedeltas(min_value=MICROSECOND, max_value=timedelta(days=400)),
    after=datetimes(
        min_value=datetime(2000, 1, 1),  # noqa: DTZ001
        max_value=datetime(2100, 1, 1),  # noqa: DTZ001
        timezones=just(UTC),
    ),
)
def test_an_interval_of_any_length_moves_on_by_exactly_its_length(
    length: timedelta, after: datetime
) -> None:
    """Floating-point seconds answered some due instants again."""
    due = instants(schedule(length), after, 5)
    assert after < due[0] <= after + length
    assert [later - earlier for earlier, later in pairwise(due)] == [length] * 4


def test_beats_that_start_at_different_times_agree_on_an_interval() -> None:
    every_minute_and_a_half = schedule(timedelta(seconds=90))
    starts = [NOON + timedelta(seconds=passed) for passed in (0, 11, 44.5, 89.999)]
    assert {next_due(every_minute_and_a_half, start) for start in starts} == {
        NOON + timedelta(seconds=90)
    }


@pytest.mark.parametrize("interval", [schedule(60), schedule(timedelta(minutes=1))])
def test_exactly_at_a_due_instant_of_an_interval_the_next_one_is_meant(interval: schedule) -> None:
    assert next_due(interval, NOON) == NOON + timedelta(minutes=1)
    assert next_due(interval, NOON - MICROSECOND) == NOON


def test_exactly_at_a_due_instant_of_a_crontab_the_next_one_is_meant() -> None:
    daily = cron(hour=12, minute=0)
    assert next_due(daily, NOON) == NOON + timedelta(days=1)


@pytest.mark.parametrize("before", [SECOND, MICROSECOND, timedelta(minutes=59, seconds=59)])
def test_just_before_a_due_instant_of_a_crontab_that_one_is_meant(before: timedelta) -> None:
    assert next_due(cron(minute=0), NOON - before) == NOON


@pytest.mark.parametrize("after", [SECOND, MICROSECOND, timedelta(seconds=59)])
def test_just_after_a_due_instant_of_a_crontab_the_next_one_is_meant(after: timedelta) -> None:
    assert next_due(cron(), NOON + after) == NOON + timedelta(minutes=1)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({"minute": "*/30"}, ["12:30", "13:00", "13:30"], id="every half hour"),
        pytest.param({"minute": "15,45"}, ["12:15", "12:45", "13:15"], id="a list"),
        pytest.param({"hour": 2, "minute": 0}, ["02:00", "02:00", "02:00"], id="every night"),
        pytest.param({"hour": "11-13", "minute": 5}, ["12:05", "13:05", "11:05"], id="a range"),
    ],
)
def test_a_crontab_is_read_on_the_schedules_wall_clock(
    fields: dict[str, Any], expected: list[str]
) -> None:
    due = instants(cron(**fields), NOON, 3)
    assert [f"{instant.astimezone(EASTERN):%H:%M}" for instant in due] == expected


def test_a_crontab_crosses_the_ends_of_month_and_year() -> None:
    first_of_the_month = cron(minute=0, hour=0, day_of_month=1)
    due = instants(first_of_the_month, datetime(2026, 11, 15, tzinfo=UTC), 3)
    assert [f"{instant.astimezone(EASTERN):%Y-%m-%d %H:%M}" for instant in due] == [
        "2026-12-01 00:00",
        "2027-01-01 00:00",
        "2027-02-01 00:00",
    ]


def test_a_crontab_of_a_rare_day_finds_it() -> None:
    leap_day = cron(minute=0, hour=0, day_of_month=29, month_of_year=2)
    due = next_due(leap_day, NOON)
    assert f"{due.astimezone(EASTERN):%Y-%m-%d %H:%M}" == "2028-02-29 00:00"


@pytest.mark.parametrize("zone", [UTC, EASTERN, ZoneInfo("Asia/Kathmandu")], ids=str)
@pytest.mark.parametrize("day", [datetime(2026, 3, 7, 13), datetime(2026, 10, 31, 13)])  # noqa: DTZ001
def test_the_zone_of_the_question_does_not_move_the_answer_across_a_dst_change(
    day: datetime, zone: Any
) -> None:
    asked_at = day.replace(tzinfo=EASTERN).astimezone(zone)
    due = next_due(cron(hour=12, minute=0), asked_at)
    assert f"{due.astimezone(EASTERN):%H:%M}" == "12:00"


@pytest.mark.parametrize("timetable", [cron(minute="*/30"), schedule(90)], ids=str)
def test_the_answer_is_in_utc(timetable: Any) -> None:
    assert next_due(timetable, NOON).tzinfo is UTC


def test_the_timetable_itself_is_left_as_it_was() -> None:
    daily = cron(hour=2, minute=0)
    before = dict(vars(daily))
    next_due(daily, NOON)
    assert vars(daily) == before


def test_a_subclass_keeps_the_state_of_its_own() -> None:
    odd = EveryOtherHour(hour="*", minute=0, odd=True)
    even = EveryOtherHour(hour="*", minute=0, odd=False)
    assert [due.hour for due in instants(odd, NOON, 3)] == [17, 19, 21]
    assert [due.hour for due in instants(even, NOON, 3)] == [18, 20, 22]


def test_an_interval_with_a_remaining_estimate_of_its_own_is_asked_and_not_its_clock() -> None:
    assert next_due(OwnClock(90), NOON) == NOON + timedelta(seconds=90)


def test_a_crontab_in_a_zone_of_its_own_is_due_by_it() -> None:
    in_tokyo = cron(hour=2, minute=0)
    in_tokyo.tz = ZoneInfo("Asia/Tokyo")
    assert f"{next_due(in_tokyo, NOON):%H:%M}" == "17:00"


@pytest.mark.parametrize("fields", [{}, {"minute": 50}, {"minute": 5, "hour": "1,3"}], ids=str)
def test_celerys_own_crontab_is_late_in_a_repeated_hour_and_does_not_stop(
    fields: dict[str, Any],
) -> None:
    """Asked in its second pass, it answers with a time of the first one."""
    theirs = schedules.crontab(**fields, app=celery_app)
    again = datetime(2026, 11, 1, 6, tzinfo=UTC)
    for passed in range(61):
        after = again + passed * timedelta(minutes=1)
        assert after < next_due(theirs, after) <= after + timedelta(days=1, hours=1)


@pytest.mark.parametrize("stuck", [Stuck(), Backwards(), schedule(-5), Late(0)], ids=repr)
def test_a_schedule_that_does_not_move_forward_is_an_error(stuck: Any) -> None:
    with pytest.raises(ValueError, match="after 2026-07-01 12:00:00-04:00 it is due at 2026"):
        next_due(stuck, NOON)


@pytest.mark.parametrize("name", BEAT_SCHEDULE)
@pytest.mark.parametrize(
    "day", [datetime(2026, 3, 8, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC)]
)
def test_every_entry_of_the_schedule_goes_on_strictly_forward(name: str, day: datetime) -> None:
    due = instants(BEAT_SCHEDULE[name]["schedule"], day, 200)
    assert due == sorted(set(due))
    assert due[0] > day
