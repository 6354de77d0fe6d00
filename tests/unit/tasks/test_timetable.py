"""A schedule that cannot be kept is refused at once, in one line that names the entry."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery import Celery
from celery.beat import BeatLazyFunc, ScheduleEntry, Scheduler
from celery.schedules import BaseSchedule, crontab, schedule

from app.settings import load_settings
from app.tasks import celery_app, timetable
from app.tasks import schedules as ours
from app.tasks.base import BaseTask
from app.tasks.celery_config import BEAT_SCHEDULE
from app.tasks.registration import RegistrationError
from app.tasks.startup import CheckedBeat
from app.tasks.timetable import ScheduleError
from app.tasks.typed_app import TypedCelery
from tests.unit.tasks.own_schedules import (
    Backwards,
    EveryOtherHour,
    Forever,
    Late,
    Nameless,
    NotATimedelta,
    OwnClock,
    OwnDelta,
    Stuck,
    Weekdays,
)

TASK = "app.tasks.bookings.send_due_reminders"
DAILY = "app.tasks.analytics.generate_daily"
BACKFILL = "app.tasks.analytics.backfill"
Schedule = dict[str, Any]


@pytest.fixture
def entries() -> Iterator[Schedule]:
    """The schedule in force: one good entry."""
    good: Schedule = {"good": {"task": TASK, "schedule": 60.0}}
    in_force_before = celery_app.conf.beat_schedule
    celery_app.conf.beat_schedule = good
    yield good
    celery_app.conf.beat_schedule = in_force_before


def test_celerys_own_kinds_of_entries_are_accepted(entries: Schedule) -> None:
    entries["interval"] = {"task": TASK, "schedule": timedelta(minutes=1), "args": ()}
    lazy = BeatLazyFunc(lambda: "2026-07-01")
    entries["lazy"] = {"task": DAILY, "schedule": 60.0, "args": (lazy,)}
    entries["crontab"] = {
        "task": DAILY,
        "schedule": crontab(minute="*/5"),
        "kwargs": {"date": "2026-07-01"},
        "options": {"queue": "email", "priority": 3},
    }
    timetable.check(celery_app)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"task": "app.tasks.bookings.send_due_reminder"},
            "there is no task 'app.tasks.bookings.send_due_reminder': "
            "did you mean 'app.tasks.bookings.send_due_reminders'?",
        ),
        ({"task": None}, "there is no task 'None'"),
        ({"args": (1,)}, f"{TASK}() does not take these arguments: too many positional arguments"),
        (
            {"kwargs": {"date": 1}},
            f"{TASK}() does not take these arguments: got an unexpected keyword",
        ),
        (
            {"task": BACKFILL, "args": ("2026-07-01",)},
            f"{BACKFILL}(first, last) does not take these arguments: "
            "missing a required argument: 'last'",
        ),
        ({"options": {"queue": "emial"}}, "no queue 'emial': did you mean 'email'?"),
        ({"options": {"priority": 10}}, "priority 10 is not between 0 and 9"),
        ({"options": {"priority": -1}}, "priority -1 is not between 0 and 9"),
        ({"options": {"expires": 60}}, "keeps no option 'expires', only catch_up, priority, queue"),
        ({"options": {"catch_up": "twice"}}, "catch_up 'twice' is none of once, each, skip"),
        ({"schedule": None}, "its schedule None is a NoneType: give seconds, a timedelta"),
        ({"schedule": "60"}, "its schedule '60' is a str: give seconds, a timedelta"),
        ({"schedule": True}, "its schedule True is a bool: give seconds, a timedelta"),
        ({"schedule": float("nan")}, "its schedule nan is not a length of time"),
        ({"schedule": float("inf")}, "its schedule inf is not a length of time"),
        ({"schedule": 0}, "interval of 0 s: beat looks every 1 s"),
        ({"schedule": -5}, "interval of -5 s: beat looks every 1 s"),
        ({"schedule": timedelta(days=-1)}, "interval of -86400 s: beat looks every 1 s"),
        ({"schedule": schedule(timedelta(0))}, "interval of 0 s: beat looks every 1 s"),
        ({"schedule": 0.000001}, "interval of 1e-06 s: beat looks every 1 s"),
        ({"schedule": 0.999}, "interval of 0.999 s: beat looks every 1 s"),
        ({"schedule": timedelta(days=10_000_000)}, "is never due"),
        ({"schedule": schedule(60, relative=True)}, "relative=True: give a crontab instead"),
        ({"schedule": 60, "relative": True}, "relative=True: give a crontab instead"),
        ({"schedule": crontab(nowfun=datetime.now)}, "a nowfun: beat goes by its own clock"),
        ({"schedule": crontab(minute=set())}, "is never due"),
        ({"schedule": crontab(day_of_week=set())}, "is never due"),
        ({"schedule": OwnDelta()}, "OwnDelta overrides remaining_delta, which"),
        ({"schedule": Weekdays(60)}, "Weekdays overrides is_due, which beat does not ask"),
        ({"schedule": Stuck()}, "is never due (after "),
        ({"schedule": Backwards()}, "is never due (after "),
        ({"schedule": Late(3)}, "is never due (after "),
        ({"schedule": NotATimedelta()}, "is never due"),
        ({"schedule": Forever()}, "is never due"),
        ({"schedule": Nameless()}, "Nameless has no __repr__"),
        ({"schedule": BaseSchedule()}, "BaseSchedule has no __repr__"),
        ({"schedul": 60}, "'schedul'"),
    ],
)
def test_what_cannot_be_kept_is_one_line_that_names_the_entry(
    entries: Schedule, changes: dict[str, Any], said: str
) -> None:
    entries["bad"] = {"task": TASK, "schedule": 60.0, **changes}
    with pytest.raises(ScheduleError) as refused:
        timetable.check(celery_app)
    line = str(refused.value)
    assert line.startswith("beat entry 'bad': ")
    assert said in line
    assert "\n" not in line


def test_a_task_that_cannot_be_registered_is_not_blamed_on_an_entry() -> None:
    app = TypedCelery("a.shop", set_as_current=False)

    async def one() -> None: ...

    app.task(base=BaseTask, name="a.shop.one", shared=False)(one)
    app.conf.beat_schedule = {"innocent": {"task": TASK, "schedule": 60.0}}
    with pytest.raises(RegistrationError, match=r"^task a.shop.one \("):
        timetable.check(app)


@pytest.mark.parametrize("given", [None, "60"])
def test_an_entry_that_comes_ready_made_without_a_schedule_is_refused_too(
    entries: Schedule, given: Any
) -> None:
    entry = ScheduleEntry(name="bad", task=TASK, schedule=60, app=celery_app)
    entry.schedule = given
    entries["bad"] = entry
    with pytest.raises(ScheduleError, match=r"beat entry 'bad': its schedule .* give seconds"):
        timetable.check(celery_app)
    entries["bad"] = {"task": TASK}
    with pytest.raises(ScheduleError, match=r"beat entry 'bad': its schedule None .* give seconds"):
        timetable.check(celery_app)


@pytest.mark.parametrize(
    "own", [EveryOtherHour(hour="*", minute=0, odd=True), OwnClock(90)], ids=repr
)
def test_a_schedule_of_ones_own_that_moves_is_accepted(entries: Schedule, own: Any) -> None:
    entries["own"] = {"task": TASK, "schedule": own}
    timetable.check(celery_app)


def test_an_interval_shorter_than_the_pause_between_two_ticks_is_refused(
    entries: Schedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings().model_copy(update={"pump_interval_seconds": 30.0})
    monkeypatch.setattr(timetable, "load_settings", lambda: settings)
    entries["often"] = {"task": TASK, "schedule": 30}
    timetable.check(celery_app)
    entries["often"]["schedule"] = 29
    with pytest.raises(ScheduleError, match="beat looks every 30 s"):
        timetable.check(celery_app)


def described(schedule: Any, app: Celery = celery_app) -> tuple[str, str]:
    given = {"task": TASK, "schedule": schedule}
    entry = timetable.periodic("x", timetable.entry_of("x", given, app), app)
    return entry.schedule_hash, entry.description


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(3600, 3601, id="two intervals that Celery prints alike"),
        pytest.param(
            EveryOtherHour(hour="*", minute=0, odd=True),
            EveryOtherHour(hour="*", minute=0, odd=False),
            id="the state of a subclass",
        ),
        pytest.param(crontab(minute=0), crontab(minute=1), id="two crontabs"),
    ],
)
def test_schedules_that_differ_have_different_hashes(one: Any, other: Any) -> None:
    assert described(one)[0] != described(other)[0]


def test_a_schedule_in_a_zone_of_its_own_keeps_it_and_is_described_with_it() -> None:
    in_tokyo = crontab(hour=2, minute=0)
    in_tokyo.tz = ZoneInfo("Asia/Tokyo")
    hash_in_tokyo, text = described(in_tokyo)
    assert text == "0 2 * * * Asia/Tokyo"
    assert hash_in_tokyo != described(crontab(hour=2, minute=0))[0]


def test_a_schedule_is_described_for_a_person() -> None:
    assert described(ours.crontab(hour=2, minute=0))[1] == "0 2 * * * US/Eastern"
    assert described(90)[1] == "every 90 s"


def test_the_hash_of_our_schedule_is_what_the_version_before_wrote() -> None:
    """Beats of both run side by side in an upgrade."""
    described = f"{ours.crontab(hour=2, minute=0)!r} US/Eastern app.tasks.analytics.generate_daily"
    entry = timetable.entries_of(celery_app)["daily-analytics"]
    periodic = timetable.periodic("daily-analytics", entry, celery_app)
    assert periodic.schedule_hash == sha256(described.encode()).hexdigest()


def test_the_beat_command_refuses_before_it_prints_anything(
    entries: Schedule, capfd: pytest.CaptureFixture[str]
) -> None:
    entries["bad"] = {"task": "nowhere.to_be_found", "schedule": 60.0}
    beat = celery_app.Beat(app=celery_app)
    assert isinstance(beat, CheckedBeat)
    with pytest.raises(SystemExit) as ended:
        beat.run()
    said = capfd.readouterr()
    assert (ended.value.code, said.out) == (2, "")
    assert said.err == "beat entry 'bad': there is no task 'nowhere.to_be_found'\n"


def test_celerys_own_scheduler_can_run_our_schedule() -> None:
    """Its option for us is none that Celery trips over."""
    app = Celery("stock", broker="memory://", set_as_current=False)
    app.conf.beat_schedule = BEAT_SCHEDULE
    scheduler = Scheduler(app=app)
    for entry in scheduler.schedule.values():
        scheduler.apply_async(entry, advance=False)
    with app.connection_for_read() as connection:
        channel = connection.default_channel
        sent = [channel.basic_get("celery", no_ack=True) for _ in BEAT_SCHEDULE]
    assert {message.headers["task"] for message in sent} == {
        entry["task"] for entry in BEAT_SCHEDULE.values()
    }
