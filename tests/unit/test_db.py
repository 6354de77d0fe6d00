"""Transactions: who takes the write lock, who waits for it, what an exception leaves."""

import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, select, text, update
from sqlalchemy.exc import DataError, IntegrityError, OperationalError
from sqlalchemy.orm import Session

from app import db
from app.models import USERS, BeatEntry, User
from app.settings import Settings, load_settings
from tests.builders import NOON, a_student
from tests.database import cut_off_others, on_postgresql, on_sqlite

IMPATIENT = 0.05  # seconds
ADDRESS, NAME = "ada@private.example", "Ada Lovelace"
QUOTED = 'ada@"private".example'


@pytest.fixture
def impatient(database: Engine) -> Iterator[Engine]:
    """A second engine on the same database, whose writers give up almost at once on SQLite."""
    url = database.url.render_as_string(hide_password=False)
    engine = db.create_database_engine(url, busy_timeout=IMPATIENT)
    yield engine
    engine.dispose()


def count_users() -> int:
    with db.reading() as session:
        return len(session.scalars(select(User)).all())


def test_a_transaction_is_committed_at_its_end(database: Engine) -> None:
    with db.transaction() as session:
        a_student(session)
    assert count_users() == 1


def test_an_exception_rolls_the_transaction_back(database: Engine) -> None:
    with pytest.raises(KeyError), db.transaction() as session:
        a_student(session)
        raise KeyError
    assert count_users() == 0


def test_what_was_committed_can_be_read_after_its_session(database: Engine) -> None:
    with db.transaction() as session:
        student = a_student(session, name="Ada")
    assert student.name == "Ada"


@on_sqlite
def test_a_transaction_that_has_only_read_holds_the_write_lock(
    database: Engine, impatient: Engine
) -> None:
    with db.transaction() as first, Session(impatient) as second:
        first.scalars(select(User)).all()
        with pytest.raises(OperationalError, match="database is locked"):
            second.scalars(select(User)).all()


def test_reading_takes_no_write_lock(database: Engine, impatient: Engine) -> None:
    with db.reading() as reader:
        assert reader.scalars(select(User)).all() == []
        with Session(impatient) as session, session.begin():
            a_student(session)


def test_reading_goes_on_beside_a_writer_and_sees_what_was_committed(database: Engine) -> None:
    with db.transaction() as writer:
        a_student(writer)
        assert count_users() == 0
    assert count_users() == 1


def test_writers_wait_for_each_other_and_no_update_is_lost(database: Engine) -> None:
    """Each reads first and writes what it read: the order that WAL cannot upgrade, and for
    which PostgreSQL wants FOR UPDATE."""
    writers, times = 8, 10
    with db.transaction() as session:
        session.add(BeatEntry(name="counter", schedule_hash="0", last_due=NOON))

    def count_up(_number: int) -> None:
        for _ in range(times):
            with db.transaction() as session:
                counter = select(BeatEntry.schedule_hash).with_for_update()
                seen = int(session.scalars(counter).one())
                session.execute(update(BeatEntry).values(schedule_hash=str(seen + 1)))

    with ThreadPoolExecutor(writers) as threads:
        list(threads.map(count_up, range(writers)))
    with db.reading() as session:
        assert session.scalars(select(BeatEntry.schedule_hash)).one() == str(writers * times)


@on_sqlite
def test_every_connection_has_wal_foreign_keys_and_the_busy_timeout(database: Engine) -> None:
    with database.execution_options(reads_only=True).connect() as connection:
        pragmas = {
            name: connection.scalar(text(f"PRAGMA {name}"))
            for name in (
                "journal_mode",
                "foreign_keys",
                "busy_timeout",
                "synchronous",
                "secure_delete",
            )
        }
    assert pragmas == {
        "journal_mode": "wal",
        "foreign_keys": 1,
        "busy_timeout": 10_000,
        "synchronous": 1,
        "secure_delete": 1,
    }


def all_said(error: BaseException) -> str:
    """Everything that a log or a dead letter could hold of it."""
    return "".join(traceback.format_exception(error)) + repr(error)


def test_an_error_message_names_what_was_violated_and_holds_no_values(database: Engine) -> None:
    with pytest.raises(IntegrityError) as caught, db.transaction() as session:
        for _ in range(2):
            a_student(session, email=ADDRESS, name=NAME)
    assert "users" in str(caught.value)
    assert "email" in str(caught.value)
    assert not {mark for mark in (ADDRESS, NAME) if mark in all_said(caught.value)}


def test_an_error_at_the_commit_holds_no_values_either(database: Engine) -> None:
    """Its check is deferred until then."""
    deferred = "REFERENCES users (email) DEFERRABLE INITIALLY DEFERRED"
    with db.transaction() as session:
        session.execute(text(f"CREATE TABLE pending (email VARCHAR {deferred})"))
    with pytest.raises(IntegrityError) as caught, db.transaction() as session:
        session.execute(text("INSERT INTO pending VALUES (:email)"), {"email": ADDRESS})
    assert ADDRESS not in all_said(caught.value)


@on_postgresql
@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("SELECT CAST(:value AS INTEGER)", "InvalidTextRepresentation"),
        ("SELECT CAST(:value AS TIMESTAMP)", "InvalidDatetimeFormat"),
        ("SELECT CAST(:value AS JSON)", "InvalidTextRepresentation"),
    ],
)
def test_an_error_about_a_value_does_not_quote_it(
    database: Engine, statement: str, error: str
) -> None:
    with pytest.raises(DataError, match=error) as caught, db.reading() as session:
        session.execute(text(statement), {"value": QUOTED})
    assert "private" not in all_said(caught.value)


def test_the_network_is_refused_inside_a_transaction_and_allowed_after_it(
    database: Engine,
) -> None:
    with db.transaction(), pytest.raises(db.NetworkInTransactionError, match="commit first"):
        db.refuse_network_in_transaction()
    with pytest.raises(KeyError), db.transaction():
        raise KeyError
    db.refuse_network_in_transaction()
    with db.reading():
        db.refuse_network_in_transaction()


def test_another_threads_transaction_does_not_refuse_the_network(database: Engine) -> None:
    with db.transaction(), ThreadPoolExecutor(1) as threads:
        threads.submit(db.refuse_network_in_transaction).result()


def rename(connection: Connection, name: str) -> int:
    return connection.execute(update(USERS).values(name=name)).rowcount


def names(connection: Connection) -> list[str]:
    return list(connection.scalars(select(USERS.c.name)))


def test_each_statement_of_a_read_of_tables_sees_what_is_committed_before_it(
    database: Engine, impatient: Engine
) -> None:
    with db.reading_tables() as reader:
        assert names(reader) == []
        with Session(impatient) as session, session.begin():
            a_student(session, name="Ada")
        assert names(reader) == ["Ada"]


def test_a_statement_of_tables_is_committed_when_it_has_run_and_needs_no_end(
    database: Engine, impatient: Engine
) -> None:
    with Session(impatient) as session, session.begin():
        a_student(session, name="Ada")
    with db.tables() as tables:
        for name in ("Bob", "Eve"):
            assert tables.run(lambda writer, to=name: rename(writer, to)) == 1
            with impatient.begin() as other:
                assert names(other) == [name]
                rename(other, "Ada")
            assert tables.run(names) == ["Ada"]


def test_tables_go_on_after_a_statement_that_failed(database: Engine) -> None:
    with db.transaction() as session:
        a_student(session, name="Ada")
    with db.tables() as tables:
        with pytest.raises(IntegrityError):
            tables.run(lambda writer: writer.execute(update(USERS).values(name=None)))
        assert tables.run(names) == ["Ada"]


def test_the_network_is_allowed_between_the_statements_of_tables(database: Engine) -> None:
    with db.tables() as tables:
        tables.run(names)
        db.refuse_network_in_transaction()


@on_postgresql
def test_what_a_lost_connection_kept_from_running_runs_on_a_new_one(
    database: Engine, impatient: Engine
) -> None:
    with db.transaction() as session:
        a_student(session, name="Ada")
    with db.tables() as tables:
        for name in ("Bob", "Eve"):
            tables.run(names)
            cut_off_others(impatient)
            assert tables.run(lambda writer, to=name: rename(writer, to)) == 1
            with impatient.begin() as other:
                assert names(other) == [name]


@on_postgresql
def test_a_connection_that_is_lost_again_and_again_is_no_reason_to_go_on_for_ever(
    database: Engine, impatient: Engine
) -> None:
    def lose(connection: Connection) -> None:
        connection.execute(select(1))
        cut_off_others(impatient)
        connection.execute(select(1))

    with db.tables() as tables, pytest.raises(OperationalError):
        tables.run(lose)


FORK = """
import os, sys
from pathlib import Path
from time import monotonic
from app import db
engine = db.engine()
with engine.connect() as connection:
    connection.exec_driver_sql("SELECT 1")
if os.fork() == 0:
    links = [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    print(sum("forked.sqlite3" in link for link in links), flush=True)
    os._exit(0)
os.wait()
"""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks /proc for open files")
def test_no_database_file_is_open_across_a_fork(tmp_path: Path) -> None:
    """The child would write without the locks that it believes it holds."""
    url = f"sqlite:///{tmp_path}/forked.sqlite3"
    answer = subprocess.run(
        [sys.executable, "-c", FORK],
        env={**os.environ, "DATABASE_URL": url, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.strip() == "0"


def test_making_an_engine_makes_nothing_else(tmp_path: Path) -> None:
    db.create_database_engine(f"sqlite:///{tmp_path}/folder/file.sqlite3")
    assert list(tmp_path.iterdir()) == []


def connection_options(url: str) -> dict[str, Any]:
    """What the driver would be told at its first connection."""
    engine = db.create_database_engine(url)
    told: dict[str, Any] = {}

    @event.listens_for(engine, "do_connect")
    def refuse(_dialect: object, _record: object, _args: object, options: dict[str, Any]) -> None:
        told.update(options)
        raise ConnectionRefusedError

    with pytest.raises(ConnectionRefusedError):
        engine.connect()
    return told


def test_a_server_that_the_network_has_lost_is_given_up_before_a_worker_s_lease() -> None:
    """Else a query waits for the kernel's patience, which is fifteen minutes or two hours."""
    told = connection_options("postgresql+psycopg://somebody@db.example/marketplace")
    unanswered = told["keepalives_idle"] + told["keepalives_interval"] * told["keepalives_count"]
    patience = Settings.model_fields["visibility_timeout_seconds"].default
    assert unanswered <= patience
    assert told["tcp_user_timeout"] <= patience * 1000
    assert told["connect_timeout"] <= patience


def test_the_url_may_say_otherwise() -> None:
    told = connection_options("postgresql+psycopg://somebody@db.example/x?connect_timeout=3")
    assert told["connect_timeout"] == "3"


@on_postgresql
def test_the_server_gives_up_a_client_that_the_network_has_lost(database: Engine) -> None:
    """Else the locks of its open transaction stay for two hours."""
    with database.connect() as connection:
        seconds = connection.scalar(
            text(
                "SELECT current_setting('tcp_keepalives_idle')::int"
                " + current_setting('tcp_keepalives_interval')::int"
                " * current_setting('tcp_keepalives_count')::int"
            )
        )
        milliseconds = connection.scalar(text("SELECT current_setting('tcp_user_timeout')::int"))
    assert (seconds, milliseconds) == (20, 20_000)


@pytest.fixture
def second(database: Engine) -> Iterator[Engine]:
    """An engine that waits for longer than a main process may."""
    url = database.url.render_as_string(hide_password=False)
    engine = db.create_database_engine(url, busy_timeout=3, idle_timeout=600)
    before = db.use(engine)
    yield engine
    db.use(before)
    engine.dispose()


def seconds_until_given_up(*, brief: bool) -> float:
    began = monotonic()
    with pytest.raises(OperationalError), db.transaction(brief=brief) as session:
        session.execute(update(User).values(name="second"))
    return monotonic() - began


def test_a_row_that_another_transaction_holds_is_given_up(database: Engine, second: Engine) -> None:
    """By a main process after a second, by a body after its busy timeout; again and again."""
    with Session(database) as first, first.begin():
        a_student(first)
    with Session(database) as first, first.begin():
        first.execute(update(User).values(name="first"))
        waits = [seconds_until_given_up(brief=brief) for brief in (True, False, True)]
    assert [round(wait) for wait in waits] == [1, 3, 1]


@on_postgresql
def test_an_idle_transaction_ends_later_than_the_task_that_has_it(second: Engine) -> None:
    idle = text("SELECT current_setting('idle_in_transaction_session_timeout')")
    with db.transaction() as session:
        assert session.scalar(idle) == "10min"
    with db.idle_for(7200), db.transaction() as session:
        assert session.scalar(idle) == "121min"
    with db.idle_for(7200), db.transaction(brief=True) as session:
        assert session.scalar(idle) == "10s"
    with db.transaction() as session:
        assert session.scalar(idle) == "10min"


def test_the_default_idle_time_is_above_the_hard_time_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = []
    monkeypatch.setattr(db, "create_database_engine", lambda *_, **options: made.append(options))
    before = db.use(None)
    monkeypatch.setenv("TASK_TIME_LIMIT_SECONDS", "7000")
    load_settings.cache_clear()
    try:
        db.engine()
    finally:
        db.use(before)
        monkeypatch.undo()
        load_settings.cache_clear()
    assert made[0]["idle_timeout"] > 7000


@on_postgresql
def test_the_server_notices_a_client_that_was_killed(database: Engine) -> None:
    with database.connect() as connection:
        interval = connection.scalar(
            text("SELECT current_setting('client_connection_check_interval')")
        )
    assert interval == "2s"


@on_postgresql
def test_a_server_without_that_setting_is_used_all_the_same(
    database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL 13."""
    monkeypatch.setattr(db, "NOTICE_OUR_END", "SELECT set_config('no_such_setting', '1', false)")
    engine = db.create_database_engine(database.url.render_as_string(hide_password=False))
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT current_setting('lock_timeout')")) == "10s"
    engine.dispose()


@on_postgresql
def test_an_error_in_the_middle_of_a_statement_stays_what_it_is(database: Engine) -> None:
    """As a soft time limit: the connection cannot be rolled back then."""

    def interrupt(*_: object) -> None:
        raise KeyError("the limit")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyError, match="the limit"), db.transaction() as session:
            session.execute(text("SELECT pg_sleep(5)"))
    finally:
        signal.signal(signal.SIGALRM, before)
    assert count_users() == 0
