"""What beat will fire, as an operator reads it."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery.schedules import crontab

from app.admin.output import WIDTH
from app.tasks import celery_app
from tests.fakes import FakeClock
from tests.unit.admin.conftest import Admin

TASK = "app.tasks.bookings.send_due_reminders"


@pytest.fixture
def timetable() -> Iterator[dict[str, Any]]:
    """The schedule in force: one run a night, one every 90 minutes."""
    in_force_before = celery_app.conf.beat_schedule
    celery_app.conf.beat_schedule = {
        "nightly": {"task": TASK, "schedule": crontab(hour=4, minute=0)},
        "often": {"task": "app.tasks.health.health_check", "schedule": timedelta(minutes=90)},
    }
    yield celery_app.conf.beat_schedule
    celery_app.conf.beat_schedule = in_force_before


def test_a_run_is_told_in_local_time_and_utc(
    admin: Admin, timetable: dict[str, Any], now: FakeClock
) -> None:
    answer = admin("schedule", "--from", "2026-07-01", "--json")
    assert answer.status == 0
    (nightly,) = (run for run in answer.json if run["entry"] == "nightly")
    assert nightly == {
        "entry": "nightly",
        "task": TASK,
        "local": "2026-07-01T04:00:00-04:00",
        "utc": "2026-07-01T08:00:00+00:00",
    }


def test_runs_come_in_order_each_once(
    admin: Admin, timetable: dict[str, Any], now: FakeClock
) -> None:
    found = admin("schedule", "--from", "2026-07-01", "--to", "2026-07-03", "--json").json
    keys = [(run["utc"], run["entry"]) for run in found]
    assert keys == sorted(set(keys))
    assert Counter(run["entry"] for run in found) == {"nightly": 3, "often": 48}


@pytest.mark.parametrize(("day", "hours"), [("2026-03-08", 23), ("2026-11-01", 25)])
def test_a_day_of_a_clock_change_has_its_own_length(
    admin: Admin, timetable: dict[str, Any], now: FakeClock, day: str, hours: int
) -> None:
    timetable["hourly"] = {"task": TASK, "schedule": timedelta(hours=1)}
    assert f"in {hours} hours, US/Eastern" in admin("schedule", "--from", day).lines[0]
    found = admin("schedule", "--from", day, "--json").json
    assert {run["local"][:10] for run in found} == {day}
    assert Counter(run["entry"] for run in found)["hourly"] == hours


def test_a_day_begins_at_its_midnight_and_the_next_one_is_left_out(
    admin: Admin, timetable: dict[str, Any], now: FakeClock
) -> None:
    timetable["midnight"] = {"task": TASK, "schedule": crontab(hour=0, minute=0)}
    found = admin("schedule", "--from", "2026-07-01", "--json").json
    midnights = [run["local"] for run in found if run["entry"] == "midnight"]
    assert midnights == ["2026-07-01T00:00:00-04:00"]


def test_without_dates_it_looks_a_day_ahead(
    admin: Admin, timetable: dict[str, Any], now: FakeClock
) -> None:
    found = admin("schedule", "--json").json
    instants = [datetime.fromisoformat(run["utc"]) for run in found]
    assert now.now <= min(instants)
    assert max(instants) < now.now + timedelta(days=1)
    assert len(found) == 1 + 16


def test_up_to_a_day_it_begins_now(admin: Admin, timetable: dict[str, Any], now: FakeClock) -> None:
    now.now = datetime(2026, 7, 1, 20, tzinfo=UTC)
    found = admin("schedule", "--to", "2026-07-02", "--json").json
    assert found[0]["utc"] >= now.now.isoformat()
    assert found[-1]["local"].startswith("2026-07-02")


def test_a_number_of_seconds_is_an_interval_as_beat_takes_it(
    admin: Admin, timetable: dict[str, Any], now: FakeClock
) -> None:
    timetable["seconds"] = {"task": TASK, "schedule": 21_600}
    found = admin("schedule", "--from", "2026-07-01", "--json").json
    assert [run["utc"][11:16] for run in found if run["entry"] == "seconds"] == [
        "06:00",
        "12:00",
        "18:00",
        "00:00",
    ]


def test_a_person_gets_the_verdict_and_the_edges_of_what_is_frequent(
    admin: Admin, timetable: dict[str, Any], now: FakeClock
) -> None:
    answer = admin("schedule", "--from", "2026-07-01")
    assert answer.lines[0] == "17 runs of 2 beat entries in 24 hours, US/Eastern"
    assert f"nightly ({TASK}): 1 run" in answer.lines
    assert "  Wed 2026-07-01 04:00:00 EDT   2026-07-01 08:00:00 UTC" in answer.lines
    assert "  ... 10 more" in answer.lines
    assert max(len(line) for line in answer.lines) <= WIDTH
    assert answer.lines[-1].startswith("--json")


def test_the_real_schedule_can_be_read(admin: Admin, now: FakeClock) -> None:
    fired = {run["entry"] for run in admin("schedule", "--json").json}
    assert fired == set(celery_app.conf.beat_schedule)


def test_a_schedule_that_beat_would_refuse_is_one_line_on_stderr(
    admin: Admin, timetable: dict[str, Any], now: FakeClock
) -> None:
    timetable["misspelt"] = {"task": "app.tasks.bookings.remind", "schedule": 60}
    answer = admin("schedule")
    assert answer.is_one_line_of_refusal, answer
    assert "beat entry 'misspelt': there is no task 'app.tasks.bookings.remind'" in answer.err


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("--from tomorrow", "tomorrow"),
        ("--from 2026-11-02 --to 2026-11-01", "before --from 2026-11-02"),
        ("--to 2026-06-30", "before today"),
        ("--from 2026-01-01 --to 2027-12-31", "more than 366"),
        ("2026-11-01", "2026-11-01"),
    ],
)
def test_other_days_than_a_year_forward_are_one_line_on_stderr(
    admin: Admin, now: FakeClock, command: str, said: str
) -> None:
    answer = admin("schedule", *command.split())
    assert answer.is_one_line_of_refusal, answer
    assert said in answer.err
