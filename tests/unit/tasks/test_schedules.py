"""Our crontab: a drop-in for Celery's, right on the days when the clocks change."""

import pickle
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery import Celery, schedules
from celery.beat import ScheduleEntry
from freezegun import freeze_time

from app.tasks import celery_app
from app.tasks.celery_config import BEAT_SCHEDULE
from app.tasks.due import next_due
from app.tasks.schedules import crontab

EASTERN = ZoneInfo("US/Eastern")
SPRING = date(2026, 3, 8)
AUTUMN = date(2026, 11, 1)
HALF_PAST_ONE_TWICE = (
    datetime(2026, 11, 1, 5, 30, tzinfo=UTC),
    datetime(2026, 11, 1, 6, 30, tzinfo=UTC),
)

# The README's schedule, and how often each entry runs on a day of 23, 24 and 25 hours.
ENTRIES = {
    "session cleanup": ({"minute": 0}, (23, 24, 25)),
    "booking reminders": ({"minute": "*/30"}, (46, 48, 50)),
    "daily analytics": ({"hour": 2, "minute": 0}, (1, 1, 1)),
    "old notification cleanup": ({"hour": 3, "minute": 0}, (1, 1, 1)),
    "no-show check": ({"minute": "*/15"}, (92, 96, 100)),
    "availability cache update": ({"minute": "*/5"}, (276, 288, 300)),
    "health check": ({}, (1380, 1440, 1500)),
}
FEW_A_DAY = [name for name, (_, (_, daily, _)) in ENTRIES.items() if daily < 100]

FIELDS = [
    pytest.param({}, id="every minute"),
    pytest.param({"minute": "*/15", "hour": "8-17"}, id="office hours"),
    pytest.param({"minute": [5, 35], "hour": {2, 3}, "day_of_week": "mon-fri"}, id="sets"),
    pytest.param({"minute": 0, "hour": 0, "day_of_month": "1,15"}, id="days"),
    pytest.param({"minute": 30, "month_of_year": "*/3", "day_of_month": 31}, id="months"),
]


@pytest.fixture(autouse=True)
def _in_us_eastern() -> None:
    assert str(celery_app.timezone) == "US/Eastern"


def cron(**fields: Any) -> crontab:
    return crontab(**fields, app=celery_app)


def fires(timetable: Any, first: date, last: date) -> Iterator[datetime]:
    """The due instants of these local days, both included."""
    start = datetime(first.year, first.month, first.day, tzinfo=EASTERN).astimezone(UTC)
    due = next_due(timetable, start - timedelta(microseconds=1))
    while due.astimezone(EASTERN).date() <= last:
        yield due
        due = next_due(timetable, due)


def local_times(timetable: Any, day: date) -> list[str]:
    return [f"{due.astimezone(EASTERN):%H:%M %Z}" for due in fires(timetable, day, day)]


def runs_by_day(timetable: Any, first: date, last: date) -> Counter[date]:
    return Counter(due.astimezone(EASTERN).date() for due in fires(timetable, first, last))


def runs_due(name: str, first: date, last: date) -> dict[date, int]:
    _, (short, usual, long) = ENTRIES[name]
    days = (first + timedelta(days=n) for n in range((last - first).days + 1))
    return {day: {SPRING: short, AUTUMN: long}.get(day, usual) for day in days}


@pytest.mark.parametrize("name", FEW_A_DAY)
def test_an_entry_runs_as_often_as_each_day_of_the_year_asks(name: str) -> None:
    year = (date(2026, 1, 1), date(2026, 12, 31))
    assert runs_by_day(cron(**ENTRIES[name][0]), *year) == runs_due(name, *year)


@pytest.mark.parametrize("changed", [SPRING, AUTUMN])
@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_runs_as_often_as_the_days_around_a_change_ask(name: str, changed: date) -> None:
    days = (changed - timedelta(days=1), changed + timedelta(days=1))
    assert runs_by_day(cron(**ENTRIES[name][0]), *days) == runs_due(name, *days)


def test_with_any_hour_the_repeated_one_counts_twice() -> None:
    half_hours = local_times(cron(minute="*/30"), AUTUMN)
    assert half_hours[:7] == [
        "00:00 EDT", "00:30 EDT", "01:00 EDT", "01:30 EDT", "01:00 EST", "01:30 EST", "02:00 EST",
    ]  # fmt: skip


def test_with_any_hour_the_missing_one_does_not_count() -> None:
    half_hours = local_times(cron(minute="*/30"), SPRING)
    assert half_hours[2:6] == ["01:00 EST", "01:30 EST", "03:00 EDT", "03:30 EDT"]


def test_a_given_time_that_comes_twice_is_meant_once() -> None:
    assert local_times(cron(hour=1, minute="0,30"), AUTUMN) == ["01:00 EDT", "01:30 EDT"]


def test_asked_in_the_second_pass_a_given_time_is_the_next_days() -> None:
    in_the_second_pass = datetime(2026, 11, 1, 6, 10, tzinfo=UTC)
    assert next_due(cron(hour=1, minute=30), in_the_second_pass) == datetime(
        2026, 11, 2, 6, 30, tzinfo=UTC
    )


def test_a_given_time_that_is_left_out_is_made_up_for_at_once() -> None:
    assert local_times(cron(hour=2, minute=30), SPRING) == ["03:00 EDT"]


def test_given_times_that_are_left_out_together_make_one_run() -> None:
    assert local_times(cron(hour="2,3", minute="*/20"), SPRING) == [
        "03:00 EDT", "03:20 EDT", "03:40 EDT",
    ]  # fmt: skip


def test_all_hours_but_one_are_given_hours() -> None:
    but_noon = cron(minute=15, hour="0-11,13-23")
    assert len(local_times(but_noon, AUTUMN)) == len(local_times(but_noon, SPRING)) == 23


def test_the_day_of_a_time_that_is_left_out_is_the_one_it_would_have_had() -> None:
    saturday_to_sunday = cron(hour=2, minute=30, day_of_week="sun")
    assert local_times(saturday_to_sunday, SPRING) == ["03:00 EDT"]
    assert local_times(cron(hour=2, minute=30, day_of_week="sat"), SPRING) == []


def test_every_entry_of_the_schedule_is_of_this_kind() -> None:
    for name, entry in BEAT_SCHEDULE.items():
        assert isinstance(entry["schedule"], crontab), name


@pytest.mark.parametrize("fields", FIELDS)
def test_it_shows_compares_and_expands_like_celerys(fields: dict[str, Any]) -> None:
    ours, celerys = crontab(**fields), schedules.crontab(**fields)
    assert repr(ours) == repr(celerys)
    assert ours == celerys
    assert celerys == ours
    assert ours == crontab(**fields)
    assert ours != crontab(minute=59, hour=23)
    assert ours.minute == celerys.minute  # type: ignore[attr-defined]
    assert type(ours).__hash__ is type(celerys).__hash__


@pytest.mark.parametrize("fields", FIELDS)
def test_it_survives_a_pickle_and_stays_ours(fields: dict[str, Any]) -> None:
    again = pickle.loads(pickle.dumps(crontab(**fields)))  # noqa: S301
    assert type(again) is crontab
    assert again == crontab(**fields)


def test_it_is_read_from_a_line_of_cron() -> None:
    nightly = crontab.from_string("30 2 * * 1")
    assert type(nightly) is crontab
    assert nightly == crontab(minute=30, hour=2, day_of_week=1)


@pytest.mark.parametrize(
    ("seconds_after_three", "due", "wait"),
    [(-1, False, 1.0), (0, True, 24 * 3600.0), (40, True, 24 * 3600.0 - 40)],
)
def test_it_is_due_when_celerys_would_be(
    seconds_after_three: float, due: bool, wait: float
) -> None:
    now = datetime(2026, 7, 1, 3, tzinfo=EASTERN) + timedelta(seconds=seconds_after_three)
    for kind in (crontab, schedules.crontab):
        nightly = kind(hour=3, minute=0, app=celery_app, nowfun=lambda: now)
        state = nightly.is_due(now - timedelta(hours=12))
        assert (state.is_due, state.next) == (due, wait)


def test_celerys_own_beat_runs_it_in_both_passes_of_an_hour() -> None:
    entry = ScheduleEntry(name="x", task="x", schedule=cron(minute=30), app=celery_app)
    for half_past in HALF_PAST_ONE_TWICE:
        entry.schedule.nowfun = lambda now=half_past: now
        entry.last_run_at = half_past - timedelta(minutes=60)
        assert entry.is_due() == (True, 3600.0)


@pytest.mark.parametrize("zone", [UTC, EASTERN], ids=str)
def test_the_zone_of_the_question_makes_no_difference(zone: Any) -> None:
    first, second = (instant.astimezone(zone) for instant in HALF_PAST_ONE_TWICE)
    assert next_due(cron(minute=30), first) == HALF_PAST_ONE_TWICE[1]
    assert next_due(cron(minute=0), second) == datetime(2026, 11, 1, 7, tzinfo=UTC)


@pytest.mark.parametrize("passed", HALF_PAST_ONE_TWICE)
def test_freezegun_does_not_move_it_though_it_drops_the_fold(passed: datetime) -> None:
    with freeze_time(passed):
        assert datetime.now(UTC).astimezone(EASTERN).fold == 0
        hourly = cron(minute=45)
        assert hourly.remaining_estimate(hourly.now()) == timedelta(minutes=15)
        assert hourly.is_due(hourly.now() - timedelta(minutes=50)) == (True, 15 * 60)
        assert next_due(hourly, hourly.now()) == passed + timedelta(minutes=15)


def test_under_freezegun_a_repeated_half_hour_is_seen() -> None:
    with freeze_time("2026-04-04"):
        lord_howe: Any = Celery(set_as_current=False)
        lord_howe.timezone = ZoneInfo("Australia/Lord_Howe")
        hourly = crontab(minute=45, app=lord_howe)
        first_pass = datetime(2026, 4, 4, 14, 45, tzinfo=UTC)
        assert next_due(hourly, first_pass) == first_pass + timedelta(minutes=30)


def test_under_freezegun_a_day_of_25_hours_is_as_long() -> None:
    with freeze_time(HALF_PAST_ONE_TWICE[0]):
        for name in ENTRIES:
            days = (AUTUMN, AUTUMN)
            assert runs_by_day(cron(**ENTRIES[name][0]), *days) == runs_due(name, *days)
