"""A database that begins anew for each round, as a copy of one that was filled once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from sqlalchemy import Engine, text

from app import db, schema
from scripts.live.postgres_server import PostgresServer

KINDS = ("sqlite", "postgresql")
EMPTY = "empty"
Fill = Callable[[], None]
"""Writes rows through ``app.db``."""


class Databases(Protocol):
    """One that is in use at ``url``, and templates of it."""

    url: str

    def make(self, template: str, fill: Fill | None = None) -> None:
        """Make a template of the newest schema, and ``fill`` it."""

    def begin(self, template: str = EMPTY) -> None:
        """Let the database be a copy of the template. Nobody may be connected."""


class SqliteFiles:
    """In a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._used = folder / "bench.sqlite3"
        self.url = f"sqlite:///{self._used}"
        self.make(EMPTY)

    def make(self, template: str, fill: Fill | None = None) -> None:
        # Closing the last connection empties the write-ahead log into the file.
        _fill(f"sqlite:///{self._path(template)}", fill)

    def begin(self, template: str = EMPTY) -> None:
        for suffix in ("-wal", "-shm"):
            Path(f"{self._used}{suffix}").unlink(missing_ok=True)
        shutil.copyfile(self._path(template), self._used)

    def _path(self, template: str) -> Path:
        return self._folder / f"{template}.sqlite3"


class PostgresDatabases:
    """In a server of our own."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self.url = self._url("bench")
        self.make(EMPTY)

    def make(self, template: str, fill: Fill | None = None) -> None:
        self._run(f'CREATE DATABASE "{template}"')
        _fill(self._url(template), fill)

    def begin(self, template: str = EMPTY) -> None:
        self._run('DROP DATABASE IF EXISTS "bench" WITH (FORCE)')
        self._run(f'CREATE DATABASE "bench" TEMPLATE "{template}"')

    def _url(self, name: str) -> str:
        return self._server.url.set(database=name).render_as_string(hide_password=False)

    def _run(self, statement: str) -> None:
        engine = db.create_database_engine(self._url("postgres"))
        try:
            with engine.connect() as connection:
                connection.execution_options(isolation_level="AUTOCOMMIT").execute(text(statement))
        finally:
            engine.dispose()


@contextmanager
def databases(kind: str, folder: Path) -> Iterator[Databases]:
    """Of one of ``KINDS``; a server is started for it and stopped."""
    if kind == "sqlite":
        yield SqliteFiles(folder)
        return
    with PostgresServer() as server:
        yield PostgresDatabases(server)


@contextmanager
def in_use(url: str) -> Iterator[Engine]:
    """Let ``app.db`` of this process use the database at ``url`` for a while."""
    engine = db.create_database_engine(url)
    before = db.use(engine)
    try:
        yield engine
    finally:
        db.use(before)
        engine.dispose()


def _fill(url: str, fill: Fill | None) -> None:
    with in_use(url) as engine:
        schema.upgrade(engine)
        if fill is not None:
            fill()
