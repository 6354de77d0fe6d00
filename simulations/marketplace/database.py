"""The marketplace's database for one replay: real SQL on SQLite, on a disk of its own."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import OperationalError

from app import db, schema
from simulations.engine.loop import EventLoop
from simulations.engine.worker import WorkerProcess

MEMORY = Path("/dev/shm")  # noqa: S108 - a folder in memory, where there is one
BUSY_SECONDS = 10.0
"""A writer waits for another one's transaction so long, then gives up."""


class Database:
    """The engine that is in force, and what a replay can do to it."""

    def __init__(self, engine: Engine, loop: EventLoop) -> None:
        self.engine = engine
        self.locks = 0
        """How many other programs want the write lock; one of them holds it."""
        self.commits = 0
        self.cuts: list[float] = []
        """What keeps workers from the database: seconds after which each attempt fails."""
        self.refused = 0
        """Statements of workers that failed because of that."""
        self._loop = loop
        event.listen(engine, "checkout", self._before_connection)
        event.listen(engine, "before_cursor_execute", self._before_statement)
        event.listen(engine, "commit", self._before_commit)

    @property
    def locked(self) -> bool:
        """Whether some other program holds the write lock."""
        return self.locks > 0

    @property
    def cut_off(self) -> bool:
        """Whether workers do not reach the database."""
        return bool(self.cuts)

    def plant(self, statement: str, *values: object) -> None:
        """Commit ``statement`` past ``app``, as another release or a person would."""
        with closing(sqlite3.connect(str(self.engine.url.database))) as connection, connection:
            connection.execute(statement, values)
        self.commits += 1

    def _before_statement(
        self, connection: Connection, _cursor: Any, statement: str, *_: Any
    ) -> None:
        self._loop.checkpoint()
        self._refuse_workers(statement)
        alone = connection.get_execution_options().get("single_statements", False)
        writes_alone = alone and not statement.startswith("SELECT")
        self.commits += writes_alone
        if self.locked and (writes_alone or statement == "BEGIN IMMEDIATE"):
            self._loop.sleep(BUSY_SECONDS)
            if self.locked:
                raise OperationalError(
                    statement, None, sqlite3.OperationalError("database is locked")
                )

    def _before_commit(self, _connection: Any) -> None:
        self._loop.checkpoint()
        self._refuse_workers("COMMIT")
        self.commits += 1

    def _before_connection(self, *_: object) -> None:
        # Of the driver, as from a server: SQLAlchemy wraps it.
        if self._is_out_of_reach():
            raise sqlite3.OperationalError("connection failed (virtual)")

    def _refuse_workers(self, statement: str) -> None:
        if self._is_out_of_reach():
            lost = sqlite3.OperationalError("the connection is lost (virtual)")
            raise OperationalError(statement, None, lost)

    def _is_out_of_reach(self) -> bool:
        if not self.cuts or not isinstance(self._loop.active, WorkerProcess):
            return False
        if self.cuts[-1]:
            self._loop.sleep(self.cuts[-1])
        self.refused += self.cut_off
        return self.cut_off


@contextmanager
def migrated_database(loop: Callable[[], EventLoop]) -> Iterator[Database]:
    """An empty database at the newest schema, in force for ``app``; deleted at the end."""
    folder = MEMORY if MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="simulation-", dir=folder) as path:
        # Processes have pools of their own. All of them here share one, which must not end:
        # a greenlet that waited for a connection would hold up everybody for good.
        engine = db.create_database_engine(f"sqlite:///{path}/marketplace.db", max_overflow=-1)
        event.listen(engine, "connect", _forget_the_disk)
        replaced = db.use(engine)
        try:
            schema.upgrade(engine)
            yield Database(engine, loop())
        finally:
            db.use(replaced)
            engine.dispose()


def _forget_the_disk(connection: Any, _record: object) -> None:
    # The machine does not lose its power in a replay.
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous = OFF")
    cursor.close()
