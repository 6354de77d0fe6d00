"""How a database finds the rows of a statement."""

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


@contextmanager
def parts_of_plans(engine: Engine) -> Iterator[list[dict[str, Any]]]:
    """Each part of PostgreSQL's plans of the queries made meanwhile.

    With how it went, except where the statement changes rows: that is not run twice.
    """
    parts: list[dict[str, Any]] = []

    def explain(_: Any, cursor: Any, statement: str, parameters: Any, *__: Any) -> None:
        if statement.startswith(("SELECT", "WITH")):
            changes = "UPDATE outbox_entries" in statement
            asked = f"EXPLAIN ({'' if changes else 'ANALYZE, '}FORMAT JSON) {statement}"
            with cursor.connection.cursor() as other:
                (plans,) = other.execute(asked, parameters).fetchone()
            parts.extend(_parts(plans[0]["Plan"]))

    event.listen(engine, "before_cursor_execute", explain)
    try:
        yield parts
    finally:
        event.remove(engine, "before_cursor_execute", explain)


def _parts(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(part for below in plan.get("Plans", []) for part in _parts(below))]
