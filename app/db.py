"""The engine, and the one way to a transaction.

The engine is made at first use, from the settings, and once for each process: a
connection must not cross a fork (SQLAlchemy, "Using Connection Pools with
Multiprocessing").
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import lru_cache, partial
from threading import RLock
from typing import Any, TypeVar

from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Engine,
    ExceptionContext,
    create_engine,
    delete,
    event,
    make_url,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import (
    DBAPIError,
    InterfaceError,
    InternalError,
    OperationalError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.settings import load_settings

Result = TypeVar("Result")

# For a server whose machine or network is gone (libpq's names, in seconds). Without them a query
# waits as long as the kernel does: fifteen minutes for what was sent, two hours for its answer.
# A server that is only slow still acknowledges, and is waited for.
GONE_AFTER = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 20_000,  # this one in milliseconds
}

DISCARD_MILLISECONDS = 500
"""Wait for other connections before SQLite's log is emptied, in milliseconds."""

# The same, asked of the server about us: until it gives up a lost client, the locks of that
# one's transaction stay. Set by a statement, since poolers refuse options at the connection.
GIVE_US_UP_AFTER = (
    "SELECT set_config('tcp_keepalives_idle', '10', false),"
    " set_config('tcp_keepalives_interval', '5', false),"
    " set_config('tcp_keepalives_count', '2', false),"
    " set_config('tcp_user_timeout', '20000', false),"
    " set_config('lock_timeout', %s, false),"
    " set_config('idle_in_transaction_session_timeout', %s, false)"
)
# A killed process's statement would run on, and hold its locks, until it has a result to send.
# PostgreSQL 13 does not know this, and on some systems a server refuses it.
NOTICE_OUR_END = "SELECT set_config('client_connection_check_interval', '2000', false)"

BRIEF_WAIT = 1.0
"""Seconds. No main process of a worker or of beat waits longer for another transaction's lock."""
BRIEF_IDLE = 10.0
"""Seconds. A main process that is stopped inside its transaction holds locks no longer."""
IDLE_MARGIN_SECONDS = 60
"""Seconds after the task's hard time limit at which an idle transaction's session ends."""

# A server that became a standby raises InternalError, one without our tables or rights
# ProgrammingError. DataError and IntegrityError are about what the statement was given.
OUTAGE_ERRORS = (
    OperationalError,
    InterfaceError,
    InternalError,
    ProgrammingError,
    PoolTimeoutError,
)
"""What a statement of ours raises through no fault of the work that it is about."""

TOO_DEEP = "(nested too deep to be read)"
"""Stands for a JSON value that this process cannot decode."""

_LOCK_NOT_AVAILABLE = "55P03"

_engine: Engine | None = None
_in_transaction: ContextVar[bool] = ContextVar("in_transaction", default=False)
_longest_idle: ContextVar[float | None] = ContextVar("longest_idle", default=None)


def engine() -> Engine:
    """This process's engine."""
    global _engine
    if _engine is None:
        settings = load_settings()
        _engine = create_database_engine(
            settings.database_url.get_secret_value(),
            busy_timeout=settings.database_busy_timeout_seconds,
            idle_timeout=settings.task_time_limit_seconds + IDLE_MARGIN_SECONDS,
        )
    return _engine


def use(replacement: Engine | None) -> Engine | None:
    """Put an engine in force (``None``: make it from the settings again); return the old one."""
    global _engine
    replaced, _engine = _engine, replacement
    return replaced


_forking = RLock()


@contextmanager
def no_fork(*, always: bool = False) -> Iterator[None]:
    """Hold back a fork of this process: for a thread that reads SQLite beside the main one.

    A fork closes the idle connections first, but not one that a thread is using. A
    server's connection may cross it, for the child leaves that alone. ``always`` holds the fork
    back whatever the database is: for a thread that takes locks which a child would inherit.
    """
    with _forking if always or engine().dialect.name == "sqlite" else nullcontext():
        yield


def _close_idle_connections() -> None:
    _forking.acquire()
    if _engine is not None:
        _engine.dispose()


def _leave_connections_to_parent() -> None:
    if _engine is not None:
        _engine.dispose(close=False)
    _forking.release()


# A SQLite file that is open across a fork has locks that only the parent holds, so the
# child's commits can vanish (sqlite.org, "How To Corrupt An SQLite Database File", 2.6);
# a server's connection would be read by both.
os.register_at_fork(
    before=_close_idle_connections,
    after_in_parent=_forking.release,
    after_in_child=_leave_connections_to_parent,
)


def is_unreachable(error: BaseException) -> bool:
    """Return whether ``error`` was raised because an engine of ours could not connect."""
    return getattr(error, "is_of_no_connection", False)


def is_lock_timeout(error: BaseException) -> bool:
    """Return whether a PostgreSQL that answers raised ``error``, because a row stayed locked."""
    return getattr(getattr(error, "orig", None), "sqlstate", None) == _LOCK_NOT_AVAILABLE


def reason(error: BaseException) -> str:
    """Return what the database or its driver reported, in one line."""
    text = str(getattr(error, "orig", None) or error).strip()
    return text.partition("\n")[0] or type(error).__name__


def create_database_engine(
    url: str, *, busy_timeout: float = 10.0, idle_timeout: float = 0.0, **pool: Any
) -> Engine:
    """An engine with this project's rules for the database behind ``url``.

    A statement waits for ``busy_timeout`` seconds for another transaction's lock. PostgreSQL
    ends a session that is idle in its transaction for ``idle_timeout`` seconds (0: never).
    ``pool`` holds options of SQLAlchemy's pool. Nothing is connected or created yet.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        created = create_engine(
            parsed,
            isolation_level="READ COMMITTED",
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args=_unless_in(parsed, GONE_AFTER),
            json_deserializer=_read_json,
            **pool,
        )
        event.listen(created, "connect", partial(_prepare_postgresql, busy_timeout, idle_timeout))
        event.listen(created, "begin", partial(_begin_postgresql, busy_timeout))
        event.listen(created, "handle_error", _mark_unreachable)
        event.listen(created, "handle_error", _forget_values)
        return created
    # Statements' parameters hold names and addresses, which no error message may carry.
    created = create_engine(
        parsed,
        connect_args={"timeout": busy_timeout},
        hide_parameters=True,
        json_deserializer=_read_json,
        **pool,
    )
    event.listen(created, "connect", _prepare_sqlite)
    event.listen(created, "handle_error", _mark_unreachable)
    event.listen(created, "begin", partial(_begin_sqlite, busy_timeout))
    return created


def _read_json(text: str) -> Any:
    """Decode a JSON column. A value that is nested too deep is read as ``TOO_DEEP``.

    How deep Python decodes depends on its version and on the depth of the stack, so one
    process may have stored what another cannot read. An error here would fail every row that
    the same statement returns.
    """
    try:
        return json.loads(text)
    except RecursionError:
        return TOO_DEEP


def _unless_in(url: URL, options: dict[str, int]) -> dict[str, int]:
    """The options of a driver on libpq that the URL does not give itself."""
    if not url.get_driver_name().startswith("psycopg"):
        return {}
    return {name: value for name, value in options.items() if name not in url.query}


def _mark_unreachable(context: ExceptionContext) -> None:
    if context.connection is None and context.sqlalchemy_exception is not None:
        context.sqlalchemy_exception.is_of_no_connection = True  # type: ignore[attr-defined]


def _forget_values(context: ExceptionContext) -> None:
    """Leave of a server's error what it says about the schema, and nothing about the data.

    Its DETAIL repeats the row (``Key (email)=(...) already exists``), and its CONTEXT may. Of
    a data exception (SQLSTATE class 22) the message itself may quote the value.
    """
    original, raised = context.original_exception, context.sqlalchemy_exception
    server_said = getattr(original, "diag", None)
    if server_said is None or server_said.message_primary is None:
        return  # an error of the driver's own: it quotes nothing
    if server_said.sqlstate.startswith("22"):
        kept = f"a value was not acceptable (SQLSTATE {server_said.sqlstate})"
    else:
        kept = server_said.message_primary
    whole = str(original)
    original.args = (kept,)
    if raised is not None:
        raised.args = (raised.args[0].replace(whole, kept),)


def _prepare_postgresql(
    busy_timeout: float, idle_timeout: float, connection: Any, _record: object
) -> None:
    cursor = connection.cursor()
    # Each is committed, else it is forgotten with the transaction.
    cursor.execute(GIVE_US_UP_AFTER, (_milliseconds(busy_timeout), _milliseconds(idle_timeout)))
    connection.commit()
    try:
        cursor.execute(NOTICE_OUR_END)
        connection.commit()
    except connection.DatabaseError:
        connection.rollback()
    cursor.close()


def _milliseconds(seconds: float) -> str:
    # To PostgreSQL, 0 means no limit.
    return str(math.ceil(seconds * 1000))


def _begin_postgresql(busy_timeout: float, connection: Connection) -> None:
    options = connection.get_execution_options()
    if options.get("isolation_level") == "AUTOCOMMIT":
        return
    wait, idle = options.get("lock_wait"), _longest_idle.get()
    limits = {}
    if wait is not None:
        limits = {
            "lock_timeout": min(wait, busy_timeout),
            "idle_in_transaction_session_timeout": BRIEF_IDLE,
        }
    elif idle is not None:
        limits = {"idle_in_transaction_session_timeout": idle}
    if limits:
        connection.exec_driver_sql(
            ";".join(f"SET LOCAL {name} = {_milliseconds(each)}" for name, each in limits.items())
        )


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver's own BEGIN comes too late and is never IMMEDIATE.
    connection.isolation_level = None
    cursor = connection.cursor()
    try:
        cursor.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError as error:
        # Only of a file that is new, and does not wait: another process is switching it, for
        # all connections, at this moment.
        if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
            raise
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    # Deleted rows and values, such as a reset's token, are overwritten in the file.
    cursor.execute("PRAGMA secure_delete = ON")
    cursor.close()


def _begin_sqlite(busy_timeout: float, connection: Connection) -> None:
    # A transaction that reads first and writes later cannot wait its turn in WAL mode:
    # it fails at once (SQLITE_BUSY_SNAPSHOT). So a writer says that it is one.
    options = connection.get_execution_options()
    wait = min(options.get("lock_wait", busy_timeout), busy_timeout)
    # The pool may have had the connection for a transaction with another wait.
    # Past SQLAlchemy: it is not a statement of the transaction.
    if connection.info.get("lock_wait", busy_timeout) != wait:
        driver: Any = connection.connection.driver_connection
        driver.execute(f"PRAGMA busy_timeout = {_milliseconds(wait)}")
        connection.info["lock_wait"] = wait
    if options.get("single_statements", False):
        return
    reads_only = options.get("reads_only", False)
    connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")


def shown(url: URL) -> str:
    """Return a database's URL without its password and options, which may hold one too."""
    return url.set(query={}).render_as_string(hide_password=True)


@contextmanager
def transaction(*, brief: bool = False) -> Iterator[Session]:
    """A session whose work is committed at the end, or rolled back by an exception.

    With ``brief`` it waits for a lock as ``briefly`` says.
    """
    bind = briefly(engine()) if brief else engine()
    with Session(bind, expire_on_commit=False) as session, session.begin():
        token = _in_transaction.set(True)
        try:
            yield session
        except BaseException:
            _roll_back(session)
            raise
        finally:
            _in_transaction.reset(token)


def _roll_back(session: Session) -> None:
    """Roll back, and keep an error of that from replacing the one that the work raised.

    A time limit leaves the driver in the middle of a statement. Such a connection rolls nothing
    back; the server does, when it is closed.
    """
    try:
        session.rollback()
    except DBAPIError:
        session.invalidate()


@lru_cache(maxsize=1)
def briefly(bind: Engine) -> Engine:
    """The same engine, whose transactions wait no longer than ``BRIEF_WAIT`` for a lock.

    For the main process of a worker or of beat, in which one wait holds up everything. After
    it a statement raises ``OperationalError``.
    """
    return bind.execution_options(lock_wait=BRIEF_WAIT)


@contextmanager
def idle_for(seconds: float) -> Iterator[None]:
    """Let the transactions inside be idle for so long, and for IDLE_MARGIN_SECONDS more."""
    token = _longest_idle.set(seconds + IDLE_MARGIN_SECONDS)
    try:
        yield
    finally:
        _longest_idle.reset(token)


@contextmanager
def reading(bind: Engine | None = None) -> Iterator[Session]:
    """A session that only reads and takes no write lock; on this process's engine by default."""
    with Session(_reading_only(bind or engine()), expire_on_commit=False) as session:
        yield session


@contextmanager
def reading_tables() -> Iterator[Connection]:
    """``reading`` without the ORM and without a transaction: each statement sees what is
    committed when it begins."""
    with _single_statements(engine()).connect() as connection:
        yield connection


@contextmanager
def tables() -> Iterator[Tables]:
    """A connection that is kept for all the short statements of a piece of work."""
    kept = Tables(_single_statements(engine()))
    try:
        yield kept
    finally:
        kept.close()


class Tables:
    """The database without the ORM, whose session takes longer than a short statement does.

    Each statement is a transaction of its own: it sees what is committed when it begins, and
    what it changes is committed when it has returned its last row.
    """

    def __init__(self, bind: Engine) -> None:
        self._bind = bind
        self._connection = bind.connect()

    def run(self, act: Callable[[Connection], Result]) -> Result:
        """What ``act`` returns of the connection.

        Where the server has ended the connection since its last use, ``act`` is called once
        more, with a new one: it must bear to have been run twice.
        """
        try:
            return act(self._connection)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
        self.close()
        self._connection = self._bind.connect()
        return act(self._connection)

    def close(self) -> None:
        self._connection.close()


def discard_deleted() -> bool:
    """Empty SQLite's write-ahead log, which keeps pages as they were before a deletion.

    Returns False where another connection reads or writes for so long that the log has to
    stay. The next call empties it. On PostgreSQL nothing is done: VACUUM is the server's.
    Call it with no transaction of this thread open.
    """
    bind = engine()
    if bind.dialect.name != "sqlite":
        return True
    connection = bind.raw_connection()
    try:
        cursor = connection.cursor()
        (usual,) = cursor.execute("PRAGMA busy_timeout").fetchone()
        cursor.execute(f"PRAGMA busy_timeout = {DISCARD_MILLISECONDS}")
        try:
            busy, _, _ = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            cursor.execute(f"PRAGMA busy_timeout = {usual}")
            cursor.close()
    except sqlite3.OperationalError:  # locked, or a disk that is full
        return False
    finally:
        connection.close()
    return not busy


@lru_cache(maxsize=1)
def _single_statements(bind: Engine) -> Engine:
    # SQLAlchemy's AUTOCOMMIT would give SQLite's driver its own BEGIN back at the end.
    if bind.dialect.name == "sqlite":
        return bind.execution_options(single_statements=True)
    return bind.execution_options(isolation_level="AUTOCOMMIT")


@lru_cache(maxsize=2)  # beat has a brief one beside the other
def _reading_only(bind: Engine) -> Engine:
    return bind.execution_options(reads_only=True)


class NetworkInTransactionError(AssertionError):
    """The network was about to be used while a transaction was open."""


def refuse_network_in_transaction() -> None:
    """Raise where a transaction is open: a slow peer would hold its locks."""
    if _in_transaction.get():
        raise NetworkInTransactionError(
            "network call inside a database transaction: commit first, then call"
        )


def insert_for(session: Session) -> Any:
    """The ``insert`` construct of the session's database, which knows ON CONFLICT.

    SQLAlchemy has one for each dialect; the two agree in what is used here.
    """
    dialect = session.get_bind().dialect.name
    return postgresql.insert if dialect == "postgresql" else sqlite.insert


def delete_batch(
    session: Session,
    key: InstrumentedAttribute[Any],
    *conditions: ColumnElement[bool],
    oldest: InstrumentedAttribute[Any],
    limit: int,
) -> int:
    """Delete up to ``limit`` rows of ``key``'s table that meet ``conditions``; how many.

    Those whose ``oldest`` is smallest go first. Waits for no other transaction: a row that
    one holds is left for the next time.
    """
    # Returned, because sqlite3 counts no rows for a statement that begins with WITH.
    deleted = session.scalars(
        delete(key.class_)
        .where(_in_batch(key, *conditions, oldest=oldest, limit=limit))
        .returning(key)
        .execution_options(synchronize_session=False)
    )
    return len(deleted.all())


def update_batch(
    session: Session,
    key: InstrumentedAttribute[Any],
    *conditions: ColumnElement[bool],
    oldest: InstrumentedAttribute[Any],
    limit: int,
    values: Mapping[str, Any],
) -> list[Any]:
    """Set ``values`` in up to ``limit`` rows that meet ``conditions``; returns their keys.

    Chooses the rows as ``delete_batch`` does, and waits for no other transaction either. An
    empty list means that all rows are updated which no other transaction holds.
    """
    updated = session.scalars(
        update(key.class_)
        .where(_in_batch(key, *conditions, oldest=oldest, limit=limit))
        .values(values)
        .returning(key)
        .execution_options(synchronize_session=False)
    )
    return list(updated)


def _in_batch(
    key: InstrumentedAttribute[Any],
    *conditions: ColumnElement[bool],
    oldest: InstrumentedAttribute[Any],
    limit: int,
) -> ColumnElement[bool]:
    # A CTE is computed once; PostgreSQL may compute an IN with a LIMIT once for each row.
    batch = (
        select(key)
        .where(*conditions)
        .order_by(oldest)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("batch")
    )
    return key.in_(select(batch.c[key.key]))
