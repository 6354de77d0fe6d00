"""A schedule that cannot be kept is refused at once, in one line that names the entry."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery
from celery.beat import Scheduler
from celery.schedules import crontab

from app.tasks import celery_app, timetable
from app.tasks.celery_config import BEAT_SCHEDULE
from app.tasks.startup import CheckedBeat
from app.tasks.timetable import ScheduleError

TASK = "app.tasks.bookings.send_due_reminders"
Schedule = dict[str, dict[str, Any]]


@pytest.fixture
def entries() -> Iterator[Schedule]:
    """The schedule in force: one good entry."""
    good: Schedule = {"good": {"task": TASK, "schedule": 60.0}}
    in_force_before = celery_app.conf.beat_schedule
    celery_app.conf.beat_schedule = good
    yield good
    celery_app.conf.beat_schedule = in_force_before


def test_celerys_own_kinds_of_entries_are_accepted(entries: Schedule) -> None:
    entries["interval"] = {"task": TASK, "schedule": timedelta(minutes=1), "args": (1,)}
    entries["crontab"] = {
        "task": TASK,
        "schedule": crontab(minute="*/5"),
        "kwargs": {"x": 1},
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
        ({"task": None}, "there is no task None"),
        ({"options": {"queue": "emial"}}, "no queue 'emial': did you mean 'email'?"),
        ({"options": {"priority": 10}}, "priority 10 is not between 0 and 9"),
        ({"options": {"priority": -1}}, "priority -1 is not between 0 and 9"),
        ({"options": {"expires": 60}}, "keeps no option 'expires', only catch_up, priority, queue"),
        ({"options": {"catch_up": "twice"}}, "catch_up 'twice' is none of once, each, skip"),
        ({"schedule": None}, "its schedule None is never due"),
        ({"schedule": 0}, "is never due (float division by zero)"),
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
