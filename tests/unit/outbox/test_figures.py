from datetime import timedelta

import pytest
from sqlalchemy import Engine

from app import db, outbox
from app.models import OutboxState
from app.outbox import dead_letters
from app.outbox.figures import COMMIT_DELAY, Deaths, count_states
from tests.fakes import FakeBroker, FakeClock

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
