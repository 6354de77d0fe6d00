"""What an operator sees of the outbox, and cancels."""

from datetime import timedelta

import pytest
from sqlalchemy import Engine, update

from app import db, outbox
from app.admin import entries
from app.admin.outbox import PUMP_PATIENCE
from app.admin.output import WIDTH
from app.models import OutboxEntry
from tests.fakes import FakeBroker, FakeClock
from tests.unit.admin.conftest import TASK, Admin, dead, done, planned


def test_an_empty_outbox_is_no_reason_to_worry(admin: Admin, database: Engine) -> None:
    answer = admin("outbox", "status")
    assert (answer.status, answer.lines[0]) == (0, "nothing waits")


def test_the_machine_gets_every_figure(admin: Admin, database: Engine, now: FakeClock) -> None:
    planned()
    planned(at=now.now + timedelta(hours=1))
    dead(now)
    done(now)
    now.advance(seconds=30)
    assert admin("outbox", "status", "--json").json == {
        "pending": 2,
        "published": 0,
        "unpublished": 1,
        "later": 1,
        "resent": 0,
        "done": 1,
        "dead": 1,
        "cancelled": 0,
        "oldest_seconds": 30.0,
        "oldest_unpublished_seconds": 30.0,
        "redis": "ok",
    }


def test_a_redis_that_does_not_answer_is_told_in_a_line(
    admin: Admin, database: Engine, now: FakeClock
) -> None:
    broker = FakeBroker(now, down=True)
    before = outbox.attach(broker)
    lines, machine = admin("outbox", "status").lines, admin("outbox", "status", "--json").json
    outbox.attach(before)
    assert lines[:2] == ["nothing waits", "nothing can be published now: connection refused"]
    assert machine["redis"] == "down"


def test_the_verdict_is_the_worst_of_what_there_is(
    admin: Admin, database: Engine, now: FakeClock
) -> None:
    def verdict() -> str:
        answer = admin("outbox", "status")
        assert max(len(line) for line in answer.lines) <= WIDTH
        return answer.lines[0]

    planned()
    now.now += PUMP_PATIENCE
    assert verdict() == "1 entry under way, the oldest due for 1m"
    dead(now)
    assert verdict() == "1 dead letter; the rest goes on"
    now.advance(seconds=1)
    assert verdict() == (
        "1 due entry not published, the oldest for 1m: does beat run, does Redis answer?"
    )


def test_an_entry_of_any_state_is_shown(admin: Admin, database: Engine, now: FakeClock) -> None:
    waiting, later = planned(42), planned(at=now.now + timedelta(hours=2))
    finished, failed = done(now), dead(now)
    now.advance(seconds=5)

    def first_line(entry_id: str) -> str:
        return admin("outbox", "show", entry_id).lines[0]

    assert first_line(waiting) == f"{waiting}: pending, due for 5s, not published"
    assert first_line(later) == f"{later}: pending, due in 1h"
    assert first_line(finished) == f"{finished}: done"
    assert first_line(failed) == f"{failed}: dead, ValueError: no"
    shown = admin("outbox", "show", waiting, "--json").json
    assert (shown["task"], shown["args"], shown["state"]) == (TASK, [42], "pending")


def test_a_pending_entry_is_cancelled_and_stays_so(
    admin: Admin, database: Engine, now: FakeClock
) -> None:
    entry_id = planned()
    first = admin("outbox", "cancel", entry_id)
    assert (first.status, first.out.count("is cancelled")) == (0, 1)
    again = admin("outbox", "cancel", entry_id, "--json")
    assert again.status == 0
    assert again.json == {"id": entry_id, "cancelled": False, "state": "cancelled"}


def test_what_is_done_or_dead_is_not_cancelled(
    admin: Admin, database: Engine, now: FakeClock
) -> None:
    for entry_id, state in ((done(now), "done"), (dead(now), "dead")):
        answer = admin("outbox", "cancel", entry_id)
        assert (answer.status, answer.out) == (1, f"{entry_id} is {state}: left as it is\n")


def test_what_is_pending_is_listed_the_longest_due_first(
    admin: Admin, database: Engine, now: FakeClock
) -> None:
    later = planned(at=now.now + timedelta(hours=2))
    first = planned(1)
    now.advance(seconds=60)
    second = planned(2)
    now.advance(seconds=1)
    published = planned(3)
    with db.transaction() as session:
        session.execute(
            update(OutboxEntry).where(OutboxEntry.id == published).values(published_at=now.now)
        )
    done(now)
    dead(now)
    now.advance(seconds=5)
    answer = admin("outbox", "list")
    assert answer.status == 0
    assert answer.lines[0] == "4 pending entries, the longest due first"
    assert [line.split()[:4] for line in answer.lines[3:7]] == [
        [first, "1m", "ago", "unpublished"],
        [second, "6s", "ago", "unpublished"],
        [published, "5s", "ago", "email"],
        [later, "in", "1h", "later"],
    ]
    assert all(TASK in line for line in answer.lines[3:7])
    assert [each["id"] for each in admin("outbox", "list", "--json").json] == [
        first,
        second,
        published,
        later,
    ]


def test_only_a_tasks_entries_are_listed(admin: Admin, database: Engine, now: FakeClock) -> None:
    planned()
    other = "app.tasks.cache.update_availability"
    with db.transaction() as session:
        mine = outbox.enqueue(session, other)
    assert [each["id"] for each in admin("outbox", "list", "--task", other, "--json").json] == [
        mine
    ]
    nothing = admin("outbox", "list", "--task", "app.tasks.health.health_check")
    assert (nothing.status, nothing.out) == (
        0,
        "nothing of app.tasks.health.health_check is pending\n",
    )
    mistyped = admin("outbox", "list", "--task", "app.tasks.health.health_chek")
    assert mistyped.status == 2
    assert mistyped.err == (
        "there is no task 'app.tasks.health.health_chek': "
        "did you mean 'app.tasks.health.health_check'?\n"
    )


def test_a_person_sees_the_first_of_many(
    admin: Admin, database: Engine, now: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries, "SHOWN", 2)
    for number in range(5):
        planned(number)
    lines = admin("outbox", "list").lines
    assert lines[0] == "5 pending entries, the longest due first"
    assert sum(TASK in line for line in lines) == 2
    assert "3 more are not shown: --json lists all" in lines
    assert len(admin("outbox", "list", "--json").json) == 5


def test_an_empty_list_says_so(admin: Admin, database: Engine) -> None:
    assert admin("outbox", "list").out == "nothing is pending\n"
    assert admin("outbox", "list", "--json").json == []
