"""Databases on the chosen PostgreSQL: made from a migrated one, emptied, dropped at the end."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import psycopg
from psycopg.rows import scalar_row
from psycopg.sql import SQL, Composed, Identifier
from sqlalchemy import URL

from app import db, schema
from app.models import Base

LOCK_TIMEOUT = "1s"
"""Who has a lock after its test has ended will not give it back soon."""

# An emptied database is as its template while it has these: tables, indexes and sequences,
# constraints, triggers. Below are the server's own.
_OBJECTS = """
    SELECT array_agg(oid ORDER BY oid) FROM (
        SELECT oid FROM pg_class UNION ALL SELECT oid FROM pg_constraint
        UNION ALL SELECT oid FROM pg_trigger
    ) AS made WHERE oid >= 16384
"""


class Databases:
    """All databases of one run (of one of its processes); nobody else's are touched."""

    def __init__(self, server: URL) -> None:
        self._server = server
        self._run = f"instainstru_test_{uuid4().hex[:12]}"
        self._made: list[str] = []
        self._migrated: URL | None = None

    def create(self, template: URL | None = None) -> URL:
        """A new database, empty or as ``template``, which nobody may be connected to."""
        name = f"{self._run}_{len(self._made)}"
        statement = SQL("CREATE DATABASE {}").format(Identifier(name))
        if template is not None:
            statement += SQL(" TEMPLATE {}").format(Identifier(str(template.database)))
        self._made.append(name)
        self._run_on_server(statement)
        return self._server.set(database=name)

    def create_migrated(self) -> URL:
        """A new database at the newest schema."""
        if self._migrated is None:
            made = self.create()
            engine = db.create_database_engine(made.render_as_string(hide_password=False))
            schema.upgrade(engine)
            engine.dispose()
            self._migrated = made
        return self.create(self._migrated)

    def drop(self, database: URL) -> None:
        """Drop a database of this run, whoever is connected to it."""
        self._drop(str(database.database))

    def drop_all(self) -> None:
        for name in self._made:
            self._drop(name)

    def _drop(self, name: str) -> None:
        self._run_on_server(SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(Identifier(name)))

    def _run_on_server(self, statement: Composed) -> None:
        with connect(self._server) as connection:
            connection.execute(statement)


class EmptiedDatabase:
    """One migrated database for many tests. Emptying it takes 12 ms, making one 45."""

    def __init__(self, databases: Databases) -> None:
        self._databases = databases
        self._url: URL | None = None
        self._connection: psycopg.Connection[Any] | None = None
        self._objects: list[int] = []
        tables = reversed(Base.metadata.sorted_tables)
        deletions = "".join(
            f" IF EXISTS (SELECT FROM {table.name}) THEN DELETE FROM {table.name}; END IF;"  # noqa: S608
            for table in tables
        )
        self._empty = (
            f"DO $$ BEGIN{deletions}"
            " PERFORM setval(oid, 1, false) FROM pg_class WHERE relkind = 'S'; END $$"
        )

    def url(self) -> URL:
        """Where it is, without a row and with every sequence at its start.

        Where a test left it changed or locked, it is made anew.
        """
        if self._url is None or not self._is_as_new():
            self.close()
            self._url = self._databases.create_migrated()
            self._connection = connect(self._url)
            self._connection.execute(f"SET lock_timeout = '{LOCK_TIMEOUT}'")
            self._objects = self._find_objects()
        return self._url

    def _is_as_new(self) -> bool:
        assert self._connection is not None
        try:
            self._connection.execute(self._empty)
            return self._find_objects() == self._objects
        except psycopg.Error:
            return False

    def _find_objects(self) -> list[int]:
        assert self._connection is not None
        with self._connection.cursor(row_factory=scalar_row) as cursor:
            found: list[int] = cursor.execute(_OBJECTS).fetchone()
            return found

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._url is not None:
            self._databases.drop(self._url)


def connect(database: URL) -> psycopg.Connection[Any]:
    """A connection past the app's own code, which commits each statement."""
    url = database.set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(url, autocommit=True)
