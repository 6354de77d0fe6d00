from datetime import timedelta

import pytest
from sqlalchemy import Engine, insert, update

from app import db, outbox
from app.models import OUTBOX_ENTRIES, OutboxEntry, OutboxState
from app.outbox import dead_letters, figures, guard
from app.outbox.figures import COMMIT_DELAY, OTHER_TASKS, Deaths, Retrying, count_states
from app.outbox.guard import Delivery
from tests.database import on_postgresql, on_sqlite
from tests.fakes import FakeBroker, FakeClock
from tests.query_plans import parts_of_plans, plans_of

TASK = "app.tasks.email.deliver"


def die(task: str = TASK) -> str:
    with db.transaction() as session:
        return outbox.bury_new(session, task, 1, error="no")


def look(deaths: Deaths, now: FakeClock) -> dict[str, int]:
    with db.reading() as session:
        return dict(deaths.look(session, now=now.now))


@pytest.fixture
def deaths(now: FakeClock, broker: FakeBroker, database: Engine) -> Deaths:
    return Deaths(since=now.now)


def test_every_state_is_counted_also_where_there_is_none(
    database: Engine, broker: FakeBroker
) -> None:
    die()
    with db.transaction() as session:
        outbox.enqueue(session, TASK, 1)
    with db.reading() as session:
        assert count_states(session) == {
            OutboxState.PENDING: 1,
            OutboxState.DONE: 0,
            OutboxState.DEAD: 1,
            OutboxState.CANCELLED: 0,
        }


def test_a_dead_letter_is_counted_once_however_often_one_looks(
    deaths: Deaths, now: FakeClock
) -> None:
    die()
    die("app.tasks.bookings.x")
    seen = []
    for _ in range(3):
        seen.append(look(deaths, now))
        now.advance(seconds=20)
    assert seen == [{TASK: 1, "app.tasks.bookings.x": 1}] * 3


def test_it_stays_counted_when_it_is_retried_and_counts_again_when_it_dies_again(
    deaths: Deaths, now: FakeClock
) -> None:
    entry_id = die()
    look(deaths, now)
    with db.transaction() as session:
        dead_letters.retry(session, [entry_id], now=now.now)
    assert look(deaths, now) == {TASK: 1}
    now.advance(seconds=5)
    with db.transaction() as session:
        outbox.guard.bury(session, outbox.guard.Delivery(entry_id, TASK), error="n", now=now.now)
    assert look(deaths, now) == {TASK: 2}


def test_what_died_long_ago_is_seen_when_nobody_looked_meanwhile(
    deaths: Deaths, now: FakeClock
) -> None:
    look(deaths, now)
    now.advance(seconds=1)
    die()
    now.advance(hours=1)
    assert look(deaths, now) == {TASK: 1}


def test_one_that_was_committed_late_is_counted(deaths: Deaths, now: FakeClock) -> None:
    """It says that it died before another one that was seen first."""
    now.advance(hours=1)
    look(deaths, now)
    now.advance(seconds=-(COMMIT_DELAY / timedelta(seconds=1)) + 1)
    die()
    now.advance(seconds=COMMIT_DELAY / timedelta(seconds=1) + 1)
    assert look(deaths, now) == {TASK: 1}


def test_the_dead_of_before_this_process_are_not_counted(
    now: FakeClock, broker: FakeBroker, database: Engine
) -> None:
    die()
    now.advance(seconds=1)
    assert look(Deaths(since=now.now), now) == {}


LONE = "MailTemporarilyRefusedError"
ENOUGH = 5_000
"""Done entries of which PostgreSQL does not read all for a question about a few pending ones."""


def failing(now: FakeClock, error: str, *, task: str = TASK, attempts: int = 1) -> str:
    """An entry whose attempts have failed so far, the last of them with ``error``."""
    with db.transaction() as session:
        entry_id = outbox.enqueue(session, task)
        for tries in range(attempts):
            attempt = Delivery(entry_id, task, tries=tries)
            assert guard.put_back(session, attempt, due_at=now.now, error=error, now=now.now)
    return entry_id


def retrying(now: FakeClock) -> dict[str, Retrying]:
    with db.reading() as session:
        return figures.retrying(session, now=now.now, lone_errors={LONE})


def test_work_that_fails_is_counted_by_task_with_its_most_frequent_error_and_oldest_age(
    database: Engine, now: FakeClock
) -> None:
    failing(now, "ConnectionError: once")
    now.advance(seconds=40)
    failing(now, "ConnectionError: refused\nat line 2", attempts=3)
    failing(now, "ConnectionError: refused\nat line 5")
    failing(now, "no worker that took it knows the task", task="app.tasks.email.renamed")
    now.advance(seconds=2)
    assert retrying(now) == {
        TASK: Retrying(
            number=3, oldest_seconds=42, error="ConnectionError: refused", outage_seconds=42, lone=0
        ),
        "app.tasks.email.renamed": Retrying(
            number=1,
            oldest_seconds=2,
            error="no worker that took it knows the task",
            outage_seconds=2,
            lone=0,
        ),
    }


def test_only_the_last_error_of_an_entry_leaves_the_database(
    database: Engine, now: FakeClock
) -> None:
    failing(now, "ConnectionError: \0 refused \udcff", attempts=3)
    with db.reading() as session:
        rows = session.execute(figures._OLDEST_RETRYING, {"of_task": TASK}).all()
    assert [error for _, error in rows] == ["ConnectionError: \\x00 refused \\udcff"]


def test_work_that_is_planned_running_or_over_is_not_retrying(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    done, dead, cancelled = (failing(now, "x") for _ in range(3))
    with db.transaction() as session:
        outbox.enqueue(session, TASK)
        outbox.enqueue(session, TASK, at=now.now + timedelta(hours=1))
        guard.close(session, Delivery(done, TASK), now=now.now)
        guard.bury(session, Delivery(dead, TASK, tries=1), error="x", now=now.now)
        guard.cancel(session, cancelled, now=now.now)
    assert retrying(now) == {}


def test_an_attempt_that_runs_now_keeps_its_entry_among_the_retrying(
    database: Engine, now: FakeClock
) -> None:
    entry_id = failing(now, "x")
    with db.transaction() as session:
        session.execute(
            update(OutboxEntry).where(OutboxEntry.id == entry_id).values(published_at=now.now)
        )
    now.advance(seconds=5)
    assert retrying(now)[TASK].oldest_seconds == 5


def test_an_entry_that_only_waits_for_its_rate_limit_is_not_retrying(
    database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    """Neither until it is published again, nor until its attempt begins; a failure counts."""
    entry_id = failing(now, "x")
    now.advance(minutes=10)
    second = Delivery(entry_id, TASK, tries=1)
    with db.transaction() as session:
        guard.wait(session, second, due_at=now.now, waits_for="rate limit 6/m")
    assert retrying(now) == {}
    with db.transaction() as session:
        session.execute(update(OutboxEntry).values(published_at=now.now))
    assert retrying(now) == {}
    with db.transaction() as session:
        guard.put_back(session, second, due_at=now.now, error="x", now=now.now)
    assert retrying(now)[TASK].oldest_seconds == 600


def test_an_outage_is_told_apart_from_items_that_are_refused_one_by_one(
    database: Engine, now: FakeClock
) -> None:
    failing(now, f"{LONE}: SMTP 452 4.2.2 to RCPT")
    failing(now, f"{LONE}: SMTP 452 4.2.2 to RCPT")
    now.advance(seconds=30)
    found = retrying(now)[TASK]
    assert (found.oldest_seconds, found.outage_seconds, found.lone) == (30, None, 2)
    failing(now, "MailServerUnavailableError: refused")
    now.advance(seconds=5)
    found = retrying(now)[TASK]
    assert (found.oldest_seconds, found.outage_seconds, found.lone) == (35, 5, 2)


def test_an_entry_that_an_older_version_put_back_is_counted_without_an_age(
    database: Engine, now: FakeClock
) -> None:
    failing(now, "x")
    with db.transaction() as session:
        session.execute(update(OutboxEntry).values(retrying_since=None))
    assert retrying(now) == {
        TASK: Retrying(number=1, oldest_seconds=None, error="x", outage_seconds=None, lone=0)
    }


def test_of_very_many_tasks_the_rare_ones_are_one_figure(
    database: Engine, now: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stranger's messages may name any number of tasks."""
    monkeypatch.setattr(figures, "MOST_TASKS", 2)
    for name, number in {"a": 3, "b": 1, "c": 2, "d": 1}.items():
        for _ in range(number):
            failing(now, f"of {name}", task=name)
        now.advance(seconds=1)
    found = retrying(now)
    assert {task: each.number for task, each in found.items()} == {"a": 3, "c": 2, OTHER_TASKS: 2}
    assert found[OTHER_TASKS].oldest_seconds == 3


def fill(database: Engine, now: FakeClock) -> None:
    """Many entries that are done, a few that are planned, three that are retried."""
    done = {
        "task": TASK,
        "queue": "email",
        "priority": 4,
        "created_at": now.now,
        "due_at": now.now,
        "finished_at": now.now,
        "state": OutboxState.DONE,
        "tries": 1,
        "retrying_since": now.now,
    }
    with db.transaction() as session:
        session.execute(
            insert(OUTBOX_ENTRIES), [{**done, "id": f"{number:08d}"} for number in range(ENOUGH)]
        )
    for _ in range(3):
        failing(now, "x")
    with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE")


@on_sqlite
def test_on_sqlite_the_retrying_are_found_by_their_index(database: Engine, now: FakeClock) -> None:
    fill(database, now)
    with plans_of(database) as plans:
        assert retrying(now)[TASK].number == 3
    steps = [step for plan in plans for step in plan if "outbox_entries" in step]
    assert len(steps) == 2
    assert all("ix_outbox_entries_retrying" in step for step in steps), steps


@on_postgresql
def test_on_postgresql_the_retrying_are_found_by_their_index(
    database: Engine, now: FakeClock
) -> None:
    fill(database, now)
    with parts_of_plans(database) as parts:
        assert retrying(now)[TASK].number == 3
    scans = [part for part in parts if "Scan" in part["Node Type"]]
    indexes = [part.get("Index Name") for part in scans if part["Node Type"] != "Bitmap Heap Scan"]
    assert indexes == ["ix_outbox_entries_retrying"] * 2
