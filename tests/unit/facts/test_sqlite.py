"""What the database code leans on in SQLite and its driver."""

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import IntegrityError

from app import db, outbox
from app.outbox.pump import Pump
from tests.database import on_sqlite
from tests.fakes import FakeBroker, FakeClock

PATIENT = 30.0  # seconds: a test that waits for it is broken, and times out


@pytest.fixture
def wal_file(tmp_path: Path) -> Path:
    path = tmp_path / "wal.sqlite3"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE counter AS SELECT 0 AS value")
    connection.close()
    return path


@pytest.fixture
def connections(wal_file: Path) -> Iterator[tuple[sqlite3.Connection, sqlite3.Connection]]:
    two = [sqlite3.connect(wal_file, timeout=PATIENT, isolation_level=None) for _ in range(2)]
    yield two[0], two[1]
    for connection in two:
        connection.close()


def test_a_reader_that_begins_to_write_fails_at_once_where_somebody_wrote_meanwhile(
    connections: tuple[sqlite3.Connection, sqlite3.Connection],
) -> None:
    """However long its busy timeout. This is why our writers BEGIN IMMEDIATE."""
    reader, writer = connections
    reader.execute("BEGIN")
    reader.execute("SELECT value FROM counter").fetchall()
    writer.execute("UPDATE counter SET value = 1")
    with pytest.raises(sqlite3.OperationalError, match="database is locked") as caught:
        reader.execute("UPDATE counter SET value = 2")
    assert caught.value.sqlite_errorname == "SQLITE_BUSY_SNAPSHOT"


def test_begin_immediate_keeps_other_writers_out_and_lets_readers_in(
    connections: tuple[sqlite3.Connection, sqlite3.Connection],
) -> None:
    first, second = connections
    second.execute("PRAGMA busy_timeout = 1")
    first.execute("BEGIN IMMEDIATE")
    assert second.execute("SELECT value FROM counter").fetchall() == [(0,)]
    with pytest.raises(sqlite3.OperationalError, match="database is locked"):
        second.execute("BEGIN IMMEDIATE")


def test_begin_immediate_does_not_tell_a_file_that_may_only_be_read(wal_file: Path) -> None:
    """The first statement that writes does, also one that changes no row."""
    connection = sqlite3.connect(f"file:{wal_file}?mode=ro", uri=True, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute("DELETE FROM counter WHERE FALSE")
    connection.close()


@on_sqlite
def test_a_transaction_of_ours_begins_with_begin_immediate_and_a_reader_with_begin(
    database: Engine,
) -> None:
    said: list[str] = []

    def trace(connection: Any, _record: object) -> None:
        connection.set_trace_callback(said.append)

    event.listen(database, "connect", trace)
    with db.transaction() as session:
        session.execute(text("SELECT 1"))
    with db.reading() as session:
        session.execute(text("SELECT 2"))
    assert said[said.index("SELECT 1") - 1] == "BEGIN IMMEDIATE"
    assert said[said.index("SELECT 2") - 1] == "BEGIN"


@on_sqlite
def test_raise_abort_in_a_trigger_arrives_as_an_integrity_error(database: Engine) -> None:
    """As a violated exclusion constraint does on PostgreSQL: callers see no difference."""
    with database.begin() as connection:
        connection.execute(text("CREATE TABLE refusing (x)"))
        connection.execute(
            text(
                "CREATE TRIGGER refuse BEFORE INSERT ON refusing "
                "BEGIN SELECT RAISE(ABORT, 'no such luck'); END"
            )
        )
    with pytest.raises(IntegrityError, match="no such luck"), database.begin() as connection:
        connection.execute(text("INSERT INTO refusing VALUES (1)"))


@on_sqlite
def test_recreating_a_table_drops_its_triggers(database: Engine) -> None:
    """What Alembic's batch mode does: a migration that uses it must make them again."""
    triggers = text("SELECT count(*) FROM sqlite_master WHERE type = 'trigger'")
    with database.connect() as connection:
        assert connection.scalar(triggers)
        connection.execute(text("CREATE TABLE copied AS SELECT * FROM bookings"))
        connection.execute(text("DROP TABLE bookings"))
        connection.execute(text("ALTER TABLE copied RENAME TO bookings"))
        assert not connection.scalar(triggers)


@on_sqlite
class TestThePumpsStatements:
    """Each finds its rows through a partial index, however many done rows there are."""

    @pytest.fixture
    def plans(self, database: Engine, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
        """The query plan of each statement with which a round of the pump looks for rows."""
        now = FakeClock.install(monkeypatch, datetime(2026, 7, 1, 12, tzinfo=UTC))
        broker = FakeBroker(now)
        pump = Pump(database, broker, margin=timedelta(seconds=10), max_publishes=3)
        with db.transaction() as session:
            outbox.enqueue(session, "app.tasks.health.health_check")
        now.advance(minutes=1)
        pump.run()
        broker.lose_everything()
        broker.down = True
        with db.transaction() as session:
            outbox.enqueue(session, "app.tasks.health.health_check")
        broker.down = False
        now.advance(minutes=1)
        statements: dict[str, Any] = {}

        def remember(
            _connection: Connection, _cursor: Any, statement: str, parameters: Any, *_: Any
        ) -> None:
            if "outbox_entries" in statement:
                statements[statement] = parameters

        event.listen(database, "before_cursor_execute", remember)
        pump.run()
        event.remove(database, "before_cursor_execute", remember)
        with database.connect() as connection:
            return {
                statement: [
                    row.detail
                    for row in connection.exec_driver_sql(
                        f"EXPLAIN QUERY PLAN {statement}", parameters
                    )
                ]
                for statement, parameters in statements.items()
            }

    def test_it_looks_before_it_takes_the_write_lock(self, plans: dict[str, list[str]]) -> None:
        looks, lists, takes, missing = plans
        for statement in (looks, lists, missing):
            assert "UPDATE" not in statement
        assert "UPDATE" in takes

    def test_due_rows_are_found_through_the_index_of_unpublished_ones(
        self, plans: dict[str, list[str]]
    ) -> None:
        look, _, update, _ = plans.values()
        (only,) = reads(look)
        assert "ix_outbox_entries_unpublished (priority=? AND due_at<?)" in only
        by_id, due, _chosen = reads(update)
        assert "sqlite_autoindex_outbox_entries_1 (id=?)" in by_id
        assert "ix_outbox_entries_unpublished (priority=? AND due_at<?)" in due

    def test_lists_and_missing_rows_are_found_through_the_index_of_published_ones(
        self, plans: dict[str, list[str]]
    ) -> None:
        _, lists, _, missing = plans.values()
        (only,) = reads(missing)
        assert "ix_outbox_entries_published" in only
        of_entries = [step for step in reads(lists) if "outbox_entries" in step]
        assert len(of_entries) == 3  # the first queue, the next one, the oldest of a list
        for step in of_entries:
            assert step.startswith("SEARCH")
            assert "ix_outbox_entries_published" in step


def reads(plan: list[str]) -> list[str]:
    """The steps that read rows: SCAN and SEARCH."""
    return [step for step in plan if step.startswith(("SCAN", "SEARCH"))]
