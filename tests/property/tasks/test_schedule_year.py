"""A small piece of ``python -m scripts.prove_schedule``: the nights when the clocks change.

Two beats, killed at every few instants; and the proof itself, which has to fail where the
schedule is wrong.
"""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery import schedules
from hypothesis import given, settings
from hypothesis.strategies import integers, sampled_from

from app.outbox import schedule
from app.tasks.celery_config import BEAT_SCHEDULE
from scripts.schedule_year.findings import Findings
from scripts.schedule_year.span import MINUTELY, run

EASTERN = ZoneInfo("US/Eastern")
SPRING = datetime(2026, 3, 8, 5, tzinfo=UTC)
AUTUMN = datetime(2026, 11, 1, 4, tzinfo=UTC)
NIGHT = timedelta(hours=5)


def night(start: datetime, *, seed: int = 0, kills: int = 12) -> Findings:
    around = (start + timedelta(hours=1), start + timedelta(hours=2, minutes=30))
    return run(start, start + NIGHT, zone=EASTERN, seed=seed, kills=kills, minutely=[around])


@settings(max_examples=4, deadline=None)
@given(start=sampled_from([SPRING, AUTUMN]), seed=integers(0, 10_000))
def test_two_beats_that_are_killed_fire_each_due_instant_once(start: datetime, seed: int) -> None:
    found = night(start, seed=seed)
    assert (found.missing, found.extra, found.pushed_twice) == ([], [], 0)
    assert found.kills.total == 12


@pytest.mark.parametrize(("start", "runs"), [(SPRING, 5), (AUTUMN, 5)])
def test_it_really_ran(start: datetime, runs: int) -> None:
    found = night(start)
    hourly = sum(seen["session-cleanup"] for seen in found.by_day.values())
    assert hourly == runs
    assert found.torn > 0
    assert found.kills.in_a_transaction > 0


def test_the_proof_fails_with_celerys_own_crontab(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, entry in BEAT_SCHEDULE.items():
        ours: Any = entry["schedule"]
        celerys = schedules.crontab(minute=ours._orig_minute, hour=ours._orig_hour, app=ours.app)
        monkeypatch.setitem(BEAT_SCHEDULE, name, {**entry, "schedule": celerys})
    lost = {name for name, _ in night(AUTUMN, kills=0).missing}
    assert lost >= {"session-cleanup", "booking-reminders", MINUTELY}


def test_the_proof_fails_where_beats_do_not_compare_before_they_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(schedule, "_replace", lambda *_args, **_options: True)
    assert night(SPRING, kills=0).extra


def test_the_proof_fails_where_setting_and_enqueueing_are_two_transactions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def set_and_commit(session: Any, *args: Any, **options: Any) -> Any:
        replaced = replace(session, *args, **options)
        session.connection().exec_driver_sql("COMMIT")
        session.connection().exec_driver_sql("BEGIN IMMEDIATE")
        return replaced

    replace = schedule._replace
    monkeypatch.setattr(schedule, "_replace", set_and_commit)
    assert night(SPRING, kills=60).missing
