"""The pump looks every second: how long that takes must not depend on how much is pending."""

from datetime import timedelta

import pytest
from sqlalchemy import Engine, event, insert, select

from app import db, outbox, routing
from app.models import OUTBOX_ENTRIES, OutboxState
from app.outbox import pending
from app.outbox.figures import first_due
from app.outbox.pump import Pump
from tests.database import on_postgresql, on_sqlite
from tests.fakes import FakeBroker, FakeClock
from tests.query_plans import parts_of_plans, plans_of

ENOUGH = 5_000
"""Rows of which PostgreSQL does not read all for each question."""


UNPUBLISHED = "ix_outbox_entries_unpublished"


def fill(now: FakeClock, **values: object) -> None:
    """Pending entries of three urgencies, all of one instant."""
    queues = [spec for spec in routing.QUEUES if spec.name in ("bookings", "email", "analytics")]
    rows = [
        {
            "id": f"{now.now:%H%M%S}-{number:08d}",
            "task": "app.tasks.email.deliver",
            "queue": spec.name,
            "priority": routing.wire_priority(spec.urgency),
            "state": OutboxState.PENDING,
            "created_at": now.now,
            "due_at": now.now,
            "due_instant": now.now,
            **values,
        }
        for number, spec in enumerate(queues * (ENOUGH // len(queues)))
    ]
    with db.transaction() as session:
        session.execute(insert(OUTBOX_ENTRIES), rows)


def analyze(database: Engine) -> None:
    with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE")


@pytest.fixture
def published(database: Engine, broker: FakeBroker, now: FakeClock) -> None:
    """Pending entries, published just now, in three lists."""
    fill(now, published_at=now.now)
    analyze(database)


@pytest.fixture(params=["counted", "not counted yet"])
def due_at_once(
    request: pytest.FixtureRequest, database: Engine, broker: FakeBroker, now: FakeClock
) -> None:
    """Unpublished entries of one instant, among done ones and ones for later.

    With the database's statistics from after their arrival, or from before it.
    """
    fill(now, state=OutboxState.DONE, finished_at=now.now)
    now.advance(seconds=1)
    fill(now, due_at=now.now + timedelta(days=1))
    if request.param == "not counted yet":
        analyze(database)
    now.advance(seconds=1)
    fill(now, due_at=now.now + timedelta(seconds=1))
    if request.param == "counted":
        analyze(database)
    now.advance(seconds=1)


@on_sqlite
@pytest.mark.usefixtures("due_at_once")
def test_on_sqlite_entries_of_one_instant_are_published_without_a_sort(
    database: Engine, pump: Pump
) -> None:
    with plans_of(database) as plans:
        assert pump.run().more
    steps = [step for plan in plans for step in plan]
    assert [step for step in steps if UNPUBLISHED in step]
    assert not [step for step in steps if "TEMP B-TREE" in step]
    assert not [step for step in steps if step.startswith("SCAN outbox_entries")]


@on_postgresql
@pytest.mark.usefixtures("due_at_once")
def test_on_postgresql_entries_of_one_instant_are_published_without_a_sort(
    database: Engine, pump: Pump
) -> None:
    with parts_of_plans(database) as parts:
        assert pump.run().more
    assert [part for part in parts if part.get("Index Name") == UNPUBLISHED]
    assert not [part for part in parts if "Sort" in part["Node Type"]]
    assert not [
        part
        for part in parts
        if part.get("Relation Name") == "outbox_entries" and part.get("Actual Rows", 0) > 1
    ]


@on_postgresql
@pytest.mark.usefixtures("published")
def test_on_postgresql_a_quiet_round_reads_no_list_to_its_end(database: Engine, pump: Pump) -> None:
    with parts_of_plans(database) as parts:
        assert pump.run().published == 0
    read = [
        int(part["Actual Rows"]) * int(part["Actual Loops"])
        for part in parts
        if part.get("Relation Name") == "outbox_entries"
    ]
    assert read
    assert sum(read) < ENOUGH / 10


@on_sqlite
@pytest.mark.usefixtures("due_at_once")
def test_on_sqlite_entries_are_published_after_their_commit_by_their_ids(
    database: Engine, broker: FakeBroker
) -> None:
    with plans_of(database) as plans, db.transaction() as session:
        outbox.enqueue(session, "app.tasks.email.deliver", 1, unchecked=True)
    assert broker.pushed
    steps = [step for plan in plans for step in plan if "outbox_entries" in step]
    assert steps
    assert all("(id=?)" in step for step in steps), steps


@on_sqlite
@pytest.mark.usefixtures("due_at_once")
def test_on_sqlite_the_first_due_entry_is_found_by_one_step_for_each_priority(
    database: Engine, now: FakeClock
) -> None:
    with plans_of(database) as plans, db.reading_tables() as connection:
        assert connection.scalar(select(first_due())) == now.now
    steps = [step for plan in plans for step in plan if "outbox_entries" in step]
    assert steps == [f"SEARCH outbox_entries USING INDEX {UNPUBLISHED} (priority=?)"]


@on_postgresql
@pytest.mark.usefixtures("due_at_once")
def test_on_postgresql_the_first_due_entry_is_found_by_one_step_for_each_priority(
    database: Engine, now: FakeClock
) -> None:
    with parts_of_plans(database) as parts, db.reading_tables() as connection:
        assert connection.scalar(select(first_due())) == now.now
    scans = [part for part in parts if part.get("Relation Name") == "outbox_entries"]
    assert [part["Index Name"] for part in scans] == [UNPUBLISHED]
    assert sum(part["Actual Rows"] * part["Actual Loops"] for part in scans) <= 10


@on_sqlite
@pytest.mark.usefixtures("due_at_once")
def test_on_sqlite_attempts_are_made_due_now_without_a_sort(
    database: Engine, now: FakeClock
) -> None:
    with plans_of(database) as plans, db.transaction() as session:
        pending.attempt_all_now(session, "app.tasks.email.deliver", now=now.now)
    steps = [step for plan in plans for step in plan]
    assert [step for step in steps if UNPUBLISHED in step]
    assert not [step for step in steps if "TEMP B-TREE" in step]


def test_a_list_in_which_nothing_is_old_is_not_looked_through(
    database: Engine, pump: Pump, broker: FakeBroker, published: None
) -> None:
    statements: list[str] = []

    def note(_: object, __: object, statement: str, *___: object) -> None:
        if statement.startswith(("SELECT", "WITH")):
            statements.append(statement)

    event.listen(database, "before_cursor_execute", note)
    try:
        pump.run()
    finally:
        event.remove(database, "before_cursor_execute", note)
    assert len(statements) == 2
