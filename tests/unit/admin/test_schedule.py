"""What beat will fire, as an operator reads it."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery.schedules import crontab
from sqlalchemy import Engine, delete

from app import db
from app.admin.output import WIDTH
from app.models import BeatEntry, OutboxEntry
from app.outbox import guard
from app.outbox.guard import Delivery
from app.outbox.schedule import (
    ABSENT_AFTER,
    PeriodicEntry,
    Step,
    advance,
    remembered,
    sign,
)
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
    """A day of it: an entry of some days of the month or week need not be due."""
    fired = {run["entry"] for run in admin("schedule", "--json").json}
    entries = celery_app.conf.beat_schedule
    assert {name for name, entry in entries.items() if is_due_daily(entry["schedule"])} <= fired
    assert fired <= set(entries)


def is_due_daily(schedule: crontab) -> bool:
    days = schedule.day_of_month, schedule.month_of_year, schedule.day_of_week
    return list(map(len, days)) == [31, 12, 7]


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


def fire(now: FakeClock, *, at: datetime, definition: str = "a", host: str = "web-1") -> str:
    """What a beat does that has this definition of the nightly entry: its run at ``at``."""
    now.now = at
    entry = PeriodicEntry(
        "nightly",
        TASK,
        schedule_hash=definition,
        definition=definition,
        description=f"definition {definition}",
        next_due=lambda after: after + timedelta(days=1),
    )
    with db.transaction() as session:
        seen = remembered(session).get("nightly")
        advance(session, entry, seen, Step(at, () if seen is None else (at,)))
        sign(session, [(entry, at)], at=at, host=host)
    with db.reading() as session:
        return session.get_one(BeatEntry, "nightly").last_run_id or ""


FIRST = datetime(2026, 7, 1, 8, tzinfo=UTC)


def nightly(admin: Admin) -> Any:
    (found,) = (e for e in admin("schedule", "--last", "--json").json if e["entry"] == "nightly")
    return found


def test_an_entry_without_a_run_is_told_with_its_next_one(
    database: Engine, admin: Admin, timetable: dict[str, Any], now: FakeClock
) -> None:
    assert nightly(admin) == {
        "entry": "nightly",
        "task": TASK,
        "time_zone": "US/Eastern",
        "last_run": None,
        "next_run": {"local": "2026-07-02T04:00:00-04:00", "utc": "2026-07-02T08:00:00+00:00"},
        "overdue_seconds": None,
        "definitions": [],
        "conflict": False,
    }


def test_the_last_run_is_told_with_its_result(
    database: Engine, admin: Admin, timetable: dict[str, Any], now: FakeClock
) -> None:
    fire(now, at=FIRST)
    run_id = fire(now, at=FIRST + timedelta(days=1))
    found = nightly(admin)
    assert found["last_run"] == {
        "local": "2026-07-02T04:00:00-04:00",
        "utc": "2026-07-02T08:00:00+00:00",
        "enqueued_at": "2026-07-02T08:00:00+00:00",
        "id": run_id,
        "state": "pending",
        "error": None,
    }
    assert found["next_run"]["utc"] == "2026-07-03T08:00:00+00:00"
    with db.transaction() as session:
        guard.bury(session, Delivery(run_id, TASK), error="ValueError: no", now=now.now)
    assert nightly(admin)["last_run"]["state"] == "dead"
    assert nightly(admin)["last_run"]["error"] == "ValueError: no"
    shown = admin("schedule", "--last").lines
    assert shown[0] == "2 beat entries, US/Eastern"
    assert "  last run    Thu 2026-07-02 04:00:00 EDT   2026-07-02 08:00:00 UTC   dead" in shown
    assert "              ValueError: no" in shown
    assert "  next run    Fri 2026-07-03 04:00:00 EDT   2026-07-03 08:00:00 UTC" in shown
    with db.transaction() as session:
        session.execute(delete(OutboxEntry))
    assert nightly(admin)["last_run"]["state"] == "purged"


def test_what_is_overdue_is_told(
    database: Engine, admin: Admin, timetable: dict[str, Any], now: FakeClock
) -> None:
    fire(now, at=FIRST)
    now.advance(days=1, minutes=5)
    assert nightly(admin)["overdue_seconds"] == 300
    assert any(line.endswith("overdue for 5m") for line in admin("schedule", "--last").lines)


def test_two_definitions_are_told_with_their_hosts(
    database: Engine, admin: Admin, timetable: dict[str, Any], now: FakeClock
) -> None:
    fire(now, at=FIRST)
    fire(now, at=FIRST + timedelta(seconds=10), definition="b", host="web-2")
    found = nightly(admin)
    assert found["conflict"]
    assert [(d["description"], d["host"], d["in_force"]) for d in found["definitions"]] == [
        ("definition b", "web-2", True),
        ("definition a", "web-1", False),
    ]
    shown = admin("schedule", "--last").lines
    assert shown[0] == "2 beat entries, US/Eastern: beats disagree about 1 of them"
    assert "  definition  in force, host web-2: definition b" in shown
    assert "  definition  not in force, host web-1: definition a" in shown
    assert max(map(len, shown)) <= WIDTH


def test_an_entry_that_only_a_running_beat_has_is_told(
    database: Engine, admin: Admin, timetable: dict[str, Any], now: FakeClock
) -> None:
    fire(now, at=FIRST)
    del timetable["nightly"]
    assert nightly(admin)["task"] is None
    assert "nightly (not in the schedule of this code)" in admin("schedule", "--last").lines
    now.now += ABSENT_AFTER
    assert [e["entry"] for e in admin("schedule", "--last", "--json").json] == ["often"]


def test_an_entry_in_a_zone_of_its_own_is_told_in_it(
    database: Engine, admin: Admin, timetable: dict[str, Any], now: FakeClock
) -> None:
    timetable["nightly"]["schedule"].tz = ZoneInfo("Asia/Tokyo")
    assert nightly(admin)["time_zone"] == "Asia/Tokyo"
    assert nightly(admin)["next_run"]["local"] == "2026-07-02T04:00:00+09:00"
    shown = admin("schedule", "--last").lines
    assert shown[0] == "2 beat entries in 2 time zones"
    assert f"nightly ({TASK}), Asia/Tokyo" in shown
    assert any(line.startswith("often (") and line.endswith("), US/Eastern") for line in shown)


def test_a_zone_that_all_entries_share_is_told_once(
    database: Engine, admin: Admin, timetable: dict[str, Any], now: FakeClock
) -> None:
    shown = admin("schedule", "--last").out
    assert shown.startswith("2 beat entries, US/Eastern\n")
    assert shown.count("US/Eastern") == 1


def test_last_and_days_are_refused_together(admin: Admin, now: FakeClock) -> None:
    answer = admin("schedule", "--last", "--from", "2026-07-01")
    assert answer.is_one_line_of_refusal, answer
    assert "--last takes no --from and no --to" in answer.err
