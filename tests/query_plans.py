"""How SQLite finds the rows of a statement."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, event


@contextmanager
def plans_of(engine: Engine) -> Iterator[list[list[str]]]:
    """The lines of EXPLAIN QUERY PLAN for each statement that is executed meanwhile.

    With its parameters bound, as it is executed: SQLite may plan a literal otherwise.
    """
    if engine.dialect.name != "sqlite":
        pytest.skip("the plans are those of SQLite")
    plans: list[list[str]] = []

    def explain(_: Any, cursor: Any, statement: str, parameters: Any, *__: Any) -> None:
        if statement.startswith(("BEGIN", "SAVEPOINT", "RELEASE")):
            return
        rows = cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
        plans.append([row[-1] for row in rows])

    event.listen(engine, "before_cursor_execute", explain)
    yield plans
    event.remove(engine, "before_cursor_execute", explain)
