"""The pump looks every second: how long that takes must not depend on how much is pending."""

import pytest
from sqlalchemy import Engine, event, insert

from app import db, routing
from app.models import OUTBOX_ENTRIES, OutboxState
from app.outbox.pump import Pump
from tests.database import on_postgresql
from tests.fakes import FakeBroker, FakeClock
from tests.query_plans import parts_of_plans

ENOUGH = 5_000
"""Rows of which PostgreSQL does not read all for each question."""


@pytest.fixture
def published(database: Engine, broker: FakeBroker, now: FakeClock) -> None:
    """Pending entries, published just now, in three lists."""
    queues = [spec for spec in routing.QUEUES if spec.name in ("bookings", "email", "analytics")]
    rows = [
        {
            "id": f"{number:08d}",
            "task": "app.tasks.email.deliver",
            "queue": spec.name,
            "priority": routing.wire_priority(spec.urgency),
            "state": OutboxState.PENDING,
            "created_at": now.now,
            "due_at": now.now,
            "due_instant": now.now,
            "published_at": now.now,
        }
        for number, spec in enumerate(queues * (ENOUGH // len(queues)))
    ]
    with db.transaction() as session:
        session.execute(insert(OUTBOX_ENTRIES), rows)
    with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE")


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
