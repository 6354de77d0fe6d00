"""Is all well? What each figure is, beyond what it is a problem, and what asking costs."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from app import db, outbox
from app.models import BeatEntry, PausedQueue
from app.outbox import guard
from app.outbox.guard import Delivery
from app.outbox.schedule import (
    ABSENT_AFTER,
    PeriodicEntry,
    Step,
    advance,
    is_known,
    remembered,
    sign,
)
from app.routing import QUEUES
from app.services import health
from app.services.health import BULK_PATIENCE, MOST_REFUSED, RECENTLY, Health, Limits
from tests.builders import NOON
from tests.database import on_sqlite
from tests.fakes import FakeBroker, FakeClock

TASK = "app.tasks.email.deliver"
SLOW_TASK = "app.tasks.analytics.generate_daily"
SECOND = timedelta(seconds=1)
LIMITS = Limits(
    queue_age=timedelta(minutes=15),
    unpublished=timedelta(minutes=2),
    beat=timedelta(minutes=3),
    dead_letters=2,
    retrying=timedelta(minutes=5),
    clock=timedelta(seconds=10),
)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    return FakeClock.install(monkeypatch, NOON)


@pytest.fixture
def broker(database: Engine, now: FakeClock) -> Iterator[FakeBroker]:
    """Publishes what is enqueued; a beat has just fired."""
    fake = FakeBroker(now)
    attached_before = outbox.attach(fake)
    fire(now)
    yield fake
    outbox.attach(attached_before)


def fire(now: FakeClock) -> None:
    with db.transaction() as session:
        session.merge(
            BeatEntry(name="health-check", schedule_hash="x", last_due=now.now, last_run_at=now.now)
        )


def check(broker: FakeBroker, now: FakeClock | None = None) -> Health:
    return health.check(broker, now=(now or broker.clock).now, limits=LIMITS)


def planned(task: str = TASK, **options: Any) -> str:
    with db.transaction() as session:
        return outbox.enqueue(session, task, unchecked=True, **options)


def dead(broker: FakeBroker) -> None:
    entry_id = planned()
    with db.transaction() as session:
        guard.bury(session, Delivery(entry_id, TASK), error="no", now=broker.clock.now)


def test_with_nothing_to_do_all_is_well(broker: FakeBroker) -> None:
    found = check(broker)
    assert (found.healthy, found.problems) == (True, ())
    assert found.as_dict() == {
        "healthy": True,
        "problems": [],
        "database": "ok",
        "redis": "ok",
        "outbox": {
            "published": 0,
            "unpublished": 0,
            "later": 0,
            "oldest_unpublished_seconds": None,
        },
        "dead_letters": {"number": 0, "recent": 0, "newest_seconds": None},
        "retrying": {},
        "beat": {"last_fired_seconds": 0.0, "overdue": {}, "conflicts": {}},
        "paused": [],
        "clock_offset_seconds": 0.0,
        "queues": {spec.name: {"waiting": 0, "oldest_seconds": None} for spec in QUEUES},
    }


def test_every_figure_is_told(broker: FakeBroker, now: FakeClock) -> None:
    planned()
    planned(at=now.now + timedelta(hours=1))
    dead(broker)
    with db.transaction() as session:
        session.add(PausedQueue(name="cache", paused_at=now.now))
    broker.down = True
    planned()
    broker.down = False
    now.advance(seconds=7)
    found = check(broker).as_dict()
    assert found["outbox"] == {
        "published": 1,
        "unpublished": 1,
        "later": 1,
        "oldest_unpublished_seconds": 7.0,
    }
    assert found["dead_letters"] == {"number": 1, "recent": 1, "newest_seconds": 7.0}
    assert found["beat"]["last_fired_seconds"] == 7.0
    assert found["paused"] == ["cache"]
    assert found["queues"]["email"] == {"waiting": 2, "oldest_seconds": 7.0}


@pytest.mark.parametrize(
    ("task", "allowed"),
    [(TASK, LIMITS.queue_age), (SLOW_TASK, LIMITS.queue_age * BULK_PATIENCE)],
)
def test_a_message_that_waits_too_long_is_a_problem(
    broker: FakeBroker, now: FakeClock, task: str, allowed: timedelta
) -> None:
    planned(task)
    now.now += allowed
    fire(now)
    assert check(broker).healthy
    now.now += SECOND
    (problem,) = check(broker).problems
    assert f"waits for {allowed.total_seconds() + 1:.0f} s: are there enough workers?" in problem


def test_what_waits_in_a_paused_queue_is_no_problem(broker: FakeBroker, now: FakeClock) -> None:
    planned()
    now.now += LIMITS.queue_age + SECOND
    fire(now)
    with db.transaction() as session:
        session.add(PausedQueue(name="email", paused_at=now.now))
    assert check(broker).healthy


def test_due_work_that_nobody_publishes_is_a_problem(broker: FakeBroker, now: FakeClock) -> None:
    outbox.attach(None)
    planned()
    now.now += LIMITS.unpublished
    assert check(broker).healthy
    now.now += SECOND
    (problem,) = check(broker).problems
    assert problem == (
        "1 due entries are not published, the oldest for 121 s: does beat run, does Redis answer?"
    )


def test_a_beat_that_fires_nothing_is_a_problem(broker: FakeBroker, now: FakeClock) -> None:
    now.now += LIMITS.beat
    assert check(broker).healthy
    now.now += SECOND
    assert check(broker).problems == (
        "beat has fired nothing for 181 s: does one run, is its clock right?",
    )


def test_when_beat_last_fired_is_known_from_runs(broker: FakeBroker, now: FakeClock) -> None:
    """What beats remember moves as well where they fire nothing."""
    now.now += LIMITS.beat + SECOND
    with db.transaction() as session:
        session.get_one(BeatEntry, "health-check").last_due = now.now
    assert check(broker).as_dict()["beat"]["last_fired_seconds"] == 181
    with db.transaction() as session:
        session.get_one(BeatEntry, "health-check").last_run_at = None
    assert check(broker).healthy, "an entry that was just added has had no run"


def entry(**fields: Any) -> PeriodicEntry:
    schedule = {"schedule_hash": "x", "next_due": lambda after: after + timedelta(hours=1)}
    return PeriodicEntry("nightly", TASK, **{**schedule, **fields})


def keep(now: FakeClock, kept: PeriodicEntry, *, host: str) -> None:
    """What a beat does that has this definition: put it in force, and sign."""
    with db.transaction() as session:
        seen = remembered(session).get(kept.name)
        if not is_known(session, kept):
            advance(session, kept, seen, Step(now.now))
        sign(session, [(kept, now.now)], at=now.now, host=host)


def test_two_definitions_of_one_entry_are_a_problem_that_names_both(
    broker: FakeBroker, now: FakeClock
) -> None:
    old = entry(definition="old", description="0 2 * * * US/Eastern")
    new = entry(definition="new", description="0 2 * * * UTC", schedule_hash="y")
    keep(now, old, host="web-1")
    assert check(broker).healthy
    keep(now, new, host="web-2")
    keep(now, old, host="web-1")
    found = check(broker)
    assert found.problems == (
        "beats disagree about nightly: 0 2 * * * UTC (host web-2) is in force, 0 2 * * * "
        "US/Eastern (host web-1) is not. Stop the beat that is wrong. "
        "python -m app.admin schedule --last lists all",
    )
    assert json.loads(json.dumps(found.as_dict()))["beat"]["conflicts"] == {
        "nightly": [
            {"description": "0 2 * * * UTC", "host": "web-2", "in_force": True},
            {"description": "0 2 * * * US/Eastern", "host": "web-1", "in_force": False},
        ]
    }
    now.now += ABSENT_AFTER
    keep(now, new, host="web-2")
    assert check(broker).healthy, "the old beat has ended"
    keep(FakeClock(now.now + timedelta(days=1)), old, host="web-1")
    assert check(broker).healthy, "a clock was wrong"


def test_a_definition_that_only_an_older_version_has_is_a_conflict_too(
    broker: FakeBroker, now: FakeClock
) -> None:
    keep(now, entry(definition="new", description="0 2 * * * UTC"), host="web-2")
    with db.transaction() as session:
        session.get_one(BeatEntry, "nightly").schedule_hash = "older"
    (problem,) = check(broker).problems
    assert "the definition of a beat of an older version is in force, 0 2 * * * UTC" in problem


def test_an_entry_that_a_living_beat_does_not_fire_is_a_problem(
    broker: FakeBroker, now: FakeClock
) -> None:
    nightly = entry(definition="one", description="0 2 * * * UTC")
    keep(now, nightly, host="web-1")
    now.now += timedelta(hours=1) + LIMITS.beat
    keep(now, nightly, host="web-1")
    fire(now)
    assert check(broker).healthy
    now.now += SECOND
    fire(now)
    assert check(broker).problems == (
        "beat entry nightly has been overdue for 181 s: the reason is in beat's log",
    )
    now.now += ABSENT_AFTER
    fire(now)
    assert check(broker).healthy, "no beat has it any more: it was taken out"


def test_what_an_older_version_fired_is_neither_overdue_nor_forgotten(
    broker: FakeBroker, now: FakeClock
) -> None:
    keep(now, entry(definition="one", description="0 2 * * * UTC"), host="web-1")
    now.now += timedelta(hours=2)
    with db.transaction() as session:
        session.get_one(BeatEntry, "nightly").last_due = now.now
    keep(now, entry(definition="one", description="0 2 * * * UTC"), host="web-1")
    found = check(broker)
    assert found.healthy
    assert found.as_dict()["beat"] == {"last_fired_seconds": 0, "overdue": {}, "conflicts": {}}


def test_a_beat_that_never_ran_is_a_problem(database: Engine, now: FakeClock) -> None:
    assert check(FakeBroker(now)).problems == ("beat has never run: start one",)


@pytest.mark.parametrize("ahead", [1, -1])
def test_a_clock_that_is_not_redis_is_a_problem(
    broker: FakeBroker, now: FakeClock, ahead: int
) -> None:
    broker.clock = FakeClock(now.now - ahead * LIMITS.clock)
    assert check(broker, now).healthy
    broker.clock.now -= ahead * SECOND
    found = check(broker, now)
    assert found.problems == (
        f"this machine's clock is {ahead * 11:+d} s off Redis's: set whichever is wrong (NTP)",
    )
    assert found.as_dict()["clock_offset_seconds"] == ahead * 11


def test_too_many_dead_letters_within_an_hour_are_a_problem(
    broker: FakeBroker, now: FakeClock
) -> None:
    for _ in range(LIMITS.dead_letters):
        dead(broker)
    assert check(broker).healthy
    dead(broker)
    (problem,) = check(broker).problems
    assert problem == "3 dead letters within an hour: python -m app.admin deadletters list"
    now.now += RECENTLY
    fire(now)
    broker.lists.clear()
    assert check(broker).healthy, "they are there to be looked at, and alarm nobody for ever"


REFUSED = "MailServerUnavailableError: mail.example:25: Connection refused"
FULL_MAILBOX = "MailTemporarilyRefusedError: mail.example:25: SMTP 452 4.2.2 to RCPT"
UNKNOWN = "no worker that took it knows the task"


def failing(now: FakeClock, error: str, task: str = TASK) -> str:
    """An entry whose first attempt has failed with ``error``."""
    entry_id = planned(task)
    with db.transaction() as session:
        due_at = now.now + timedelta(hours=1)
        guard.put_back(session, Delivery(entry_id, task), due_at=due_at, error=error, now=now.now)
    return entry_id


@pytest.mark.parametrize(("task", "error"), [(TASK, REFUSED), ("app.tasks.email.renamed", UNKNOWN)])
def test_work_that_fails_and_retries_for_too_long_is_a_problem(
    broker: FakeBroker, now: FakeClock, task: str, error: str
) -> None:
    entry_id = failing(now, error, task)
    now.now += LIMITS.retrying
    fire(now)
    assert check(broker).healthy
    now.now += SECOND
    found = check(broker)
    assert found.problems == (
        f"1 entry of {task} has been retrying for 301 s, last error {error}: "
        f"python -m app.admin outbox list --state retrying --task {task}",
    )
    assert found.as_dict()["retrying"] == {
        task: {
            "number": 1,
            "oldest_seconds": 301.0,
            "error": error,
            "outage_seconds": 301.0,
            "lone": 0,
        }
    }
    with db.transaction() as session:
        guard.mark_done(session, Delivery(entry_id, task), now=now.now)
    assert check(broker).healthy


def test_many_entries_that_retry_are_one_problem(broker: FakeBroker, now: FakeClock) -> None:
    for _ in range(3):
        failing(now, REFUSED)
    now.now += LIMITS.retrying + SECOND
    fire(now)
    (problem,) = check(broker).problems
    assert problem.startswith(f"3 entries of {TASK} have been retrying, the oldest for 301 s, most")


def test_a_few_mailboxes_that_are_full_are_not_a_problem_and_many_are(
    broker: FakeBroker, now: FakeClock
) -> None:
    for _ in range(MOST_REFUSED):
        failing(now, FULL_MAILBOX)
    now.now += LIMITS.retrying + SECOND
    fire(now)
    assert check(broker).healthy
    failing(now, FULL_MAILBOX)
    (problem,) = check(broker).problems
    assert f"{MOST_REFUSED + 1} entries of {TASK} have been retrying" in problem


def test_a_mail_server_that_refuses_us_is_a_problem_at_once(
    broker: FakeBroker, now: FakeClock
) -> None:
    error = "MailRefusesUsError: mail.example:25: SMTP 550 5.7.1 to MAIL"
    failing(now, error)
    now.now += SECOND
    (problem,) = check(broker).problems
    assert problem.startswith(f"1 entry of {TASK} has been retrying for 1 s, last error {error}")


def test_what_retries_in_a_paused_queue_is_not_a_problem(
    broker: FakeBroker, now: FakeClock
) -> None:
    failing(now, REFUSED)
    now.now += LIMITS.retrying + SECOND
    fire(now)
    with db.transaction() as session:
        session.add(PausedQueue(name="email", paused_at=now.now))
    assert check(broker).healthy


def test_a_redis_that_does_not_answer_is_a_problem_and_the_rest_is_told(broker: FakeBroker) -> None:
    broker.down = True
    found = check(broker)
    assert found.problems == ("Redis does not answer: connection refused",)
    assert found.as_dict()["redis"] == "down"
    assert found.as_dict()["database"] == "ok"


def test_a_database_that_does_not_answer_is_a_problem_and_the_rest_is_told(
    broker: FakeBroker, database: Engine, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    db.use(db.create_database_engine(f"sqlite:///{tmp_path}/file/not-there.sqlite3"))
    found = check(broker)
    left = db.use(database)
    assert left is not None
    left.dispose()
    assert found.problems == ("the database does not answer: unable to open database file",)
    assert (found.as_dict()["database"], found.as_dict()["redis"]) == ("down", "ok")


@pytest.mark.parametrize("file", ["empty.sqlite3", "not/there.sqlite3"])
def test_a_database_without_tables_is_told_of_with_the_command_that_makes_them(
    file: str, broker: FakeBroker, database: Engine, tmp_path: Path
) -> None:
    (tmp_path / "empty.sqlite3").touch()
    db.use(db.create_database_engine(f"sqlite:///{tmp_path}/{file}"))
    found = check(broker)
    left = db.use(database)
    assert left is not None
    left.dispose()
    (problem,) = found.problems
    assert (
        problem == "the database has not this code's tables: python -m app.admin database upgrade"
    )


@on_sqlite
def test_it_never_reads_the_whole_outbox(broker: FakeBroker, database: Engine) -> None:
    """It is asked every minute, and the outbox holds a week of done entries."""
    asked = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if "outbox_entries" in statement:
            asked.append((statement, parameters))

    failing(broker.clock, REFUSED)
    event.listen(database, "before_cursor_execute", note)
    check(broker)
    event.remove(database, "before_cursor_execute", note)
    partial = {
        "ix_outbox_entries_retrying",
        "ix_outbox_entries_unpublished",
        "ix_outbox_entries_published",
        "ix_outbox_entries_dead",
    }
    used = set()
    with database.connect() as connection:
        for statement, parameters in asked:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            steps = [row.detail for row in plan if "outbox_entries" in row.detail]
            for step in steps:
                used.update(name for name in partial if name in step)
            assert steps
            assert all(any(name in step for name in partial) for step in steps), steps
    assert used == partial
