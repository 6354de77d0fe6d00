"""The database's schema: is it the newest, and making it so."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from app import db
from app.models import Base

logger = logging.getLogger(__name__)
# Says at every start how it will run migrations, also where there are none to run.
logging.getLogger("alembic.runtime.migration").setLevel(logging.WARNING)

UPGRADE_COMMAND = "python -m app.admin database upgrade"
UPGRADE_LOCK = 4_961_726_873
"""The number of the advisory lock that an upgrade holds: any, as long as nobody else has it."""


class DatabaseNotReadyError(Exception):
    """The database cannot be used as it is; the message is one line with what to do."""

    may_pass = False
    """Whether the same attempt may succeed later without a changed setting."""


def newest() -> str:
    """The revision that this code needs."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None  # noqa: S101 - there are migrations
    return head


def current(connection: Connection) -> str | None:
    """The revision of the database behind ``connection``; ``None`` for an empty one."""
    return MigrationContext.configure(connection).get_current_revision()


def current_of(engine: Engine) -> str | None:
    """The revision of a database; ``None`` for an empty one, or a SQLite file that is not there.

    Raises ``DatabaseNotReadyError`` where it cannot be used.
    """
    with _one_line_errors(engine):
        try:
            if (file := _sqlite_file(engine)) is not None:
                file.stat()
        except FileNotFoundError:
            return None
        with engine.connect() as connection:
            _refuse_read_only(connection)
            return current(connection)


def upgrade(engine: Engine) -> bool:
    """Bring the schema to the newest revision, in one transaction; whether it was behind.

    A missing SQLite file is created, with its folder. Of several processes that call this
    at once, one works and the others wait for its lock. One that a newer version has upgraded
    is left as it is, where it fits. Raises ``DatabaseNotReadyError`` where the database cannot
    be used.
    """
    with _one_line_errors(engine), migrating(engine) as connection:
        revision = current(connection)
        if revision == newest():
            _refuse_read_only(connection)
            return False
        if is_newer(revision):
            _check_newer(connection, revision)
            return False
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        logger.info("the database's schema is now at revision %s", newest())
        return True


@contextmanager
def migrating(engine: Engine) -> Iterator[Connection]:
    """A transaction for migrations, while all others wait that want the same.

    The folder of a SQLite file is made.
    """
    if (file := _sqlite_file(engine)) is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    with engine.begin() as connection:
        _keep_others_waiting(connection)
        yield connection


def prepare(engine: Engine) -> None:
    """Make sure at the start of a process that the database can be used.

    A SQLite file is created and migrated here, so that the first command just works. A
    database server is migrated by a person: there it only checks.

    Raises ``DatabaseNotReadyError``.
    """
    if engine.dialect.name == "sqlite":
        upgrade(engine)
    revision = check(engine)
    if is_newer(revision):
        logger.warning(
            "the database's schema, %s, is of a newer version than this code (%s), and has all "
            "that this code needs",
            revision,
            newest(),
        )


def check(engine: Engine) -> str:
    """The revision of a database that has all that this code needs.

    The newest one, or one of a newer version: in the middle of an upgrade the database is
    already the new version's, and a worker of the old one may be started again. Raises
    ``DatabaseNotReadyError`` for any other.
    """
    revision = current_of(engine)
    if revision is not None and is_newer(revision):
        with _one_line_errors(engine), engine.connect() as connection:
            _check_newer(connection, revision)
    elif revision is None or revision != newest():
        place = db.shown(engine.url)
        found = f"the schema of {place} is at {revision}" if revision else f"{place} has no schema"
        raise DatabaseNotReadyError(
            f"DATABASE_URL: {found}, this code needs {newest()}: run {UPGRADE_COMMAND}"
        )
    return revision


def is_newer(revision: str | None) -> bool:
    """Whether a database's revision is none of this code's: a newer version has made it."""
    known = {each.revision for each in ScriptDirectory.from_config(_config()).walk_revisions()}
    return revision is not None and revision not in known


def _check_newer(connection: Connection, revision: str | None) -> None:
    problems = _misfits(connection)
    if problems:
        place = db.shown(connection.engine.url)
        raise DatabaseNotReadyError(
            f"DATABASE_URL: the schema of {place} is at {revision}, of a newer version, and does "
            f"not fit this code ({newest()}): {', '.join(problems)}: deploy the version that it "
            "was upgraded for"
        )


def _misfits(connection: Connection) -> list[str]:
    """What a database lacks that this code uses, or demands that this code does not give."""
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    problems = []
    for difference in compare_metadata(context, Base.metadata):
        # A changed column is a list, with one difference for each change.
        for what, *about in difference if isinstance(difference, list) else [difference]:
            problem = _misfit(what, about)
            if problem is not None:
                problems.append(problem)
    return sorted(problems)


def _misfit(what: str, about: list[Any]) -> str | None:
    """One problem in words; ``None`` for what is more than this code needs.

    ``what`` and ``about`` are as ``alembic.autogenerate.compare_metadata`` tells them: what
    would have to be done to a database to make it that of the models.
    """
    match what, about:
        case "add_table", [table]:
            return f"table {table.name} is missing"
        case "add_column", [_, table, column]:
            return f"column {table}.{column.name} is missing"
        case "remove_column", [_, table, column]:
            must_be_given = not column.nullable and column.server_default is None
            return f"column {table}.{column.name} must be filled in" if must_be_given else None
        case "remove_index", [index]:
            return f"a unique index on {index.table.name} is unknown" if index.unique else None
        case "remove_table" | "add_index" | "modify_comment", _:
            return None
        case (("modify_type" | "modify_nullable" | "modify_default"), [_, table, column, *_]):
            return f"column {table}.{column} is another one"
        case _, [constraint, *_]:
            return f"{getattr(constraint, 'name', None) or what} on a table differs"
        case _:
            return what


def _keep_others_waiting(connection: Connection) -> None:
    # On SQLite the beginning of the transaction has done so.
    if connection.dialect.name != "postgresql":
        return
    # Others may work for minutes. Locks of tables are not waited for so long: every statement
    # of a worker would stand in line behind this one.
    longest = connection.exec_driver_sql("SHOW lock_timeout").scalar_one()
    connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({UPGRADE_LOCK})")
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{longest}'")


@contextmanager
def _one_line_errors(engine: Engine) -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, CommandError, OSError) as error:
        place = db.shown(engine.url)
        refused = DatabaseNotReadyError(
            f"DATABASE_URL: cannot use {place}: {_reason(error)}; "
            "it must be a database that this user may write to"
        )
        refused.may_pass = _may_pass(error)
        raise refused from error


def _may_pass(error: Exception) -> bool:
    """Whether a database server did not let us in, or a SQLite file was locked for too long.

    A server's wrong password counts too: drivers do not tell it from an outage.
    """
    if not isinstance(error, OperationalError):
        return False
    sqlite_error: str | None = getattr(error.orig, "sqlite_errorname", None)
    return sqlite_error is None or sqlite_error.startswith("SQLITE_BUSY")


def _refuse_read_only(connection: Connection) -> None:
    # SQLite takes a file that it may not write to, also for BEGIN IMMEDIATE, until the
    # first statement that writes.
    if connection.dialect.name == "sqlite" and current(connection) is not None:
        connection.exec_driver_sql("DELETE FROM alembic_version WHERE FALSE")


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.strerror}: {error.filename}"
    return db.reason(error)


def _sqlite_file(engine: Engine) -> Path | None:
    """The file behind ``engine``; ``None`` for a database in memory or on a server."""
    database = engine.url.database
    if engine.dialect.name != "sqlite" or not database or database == ":memory:":
        return None
    return None if database.startswith("file:") else Path(database)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config
