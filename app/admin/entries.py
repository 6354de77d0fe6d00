"""Outbox entries as an operator chooses and sees them."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, String, cast, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from app import db, routing
from app.admin.arguments import UsageError
from app.admin.output import age, figures, instant
from app.domain.errors import one_line, printable
from app.models import OutboxEntry, OutboxState
from app.outbox.dead_letters import UnknownEntriesError

SHOWN = 50
"""Rows of a list for a person; a machine gets all."""


CANDIDATES = 5
"""Ids that a message lists where the operator typed the beginning of several."""
SHORT_ID = 23
"""Signs of an id in a table: its millisecond and 26 random bits."""


def add_choice(action: argparse.ArgumentParser) -> None:
    """Add ``ID... | --all --task NAME``."""
    action.add_argument("ids", nargs="*", metavar="ID", help="ids, or unique beginnings of ids")
    action.add_argument("--all", action="store_true", help="every one of the task, with --task")
    action.add_argument("--task", metavar="NAME", help="with --all: the task")


def check_choice(chosen: argparse.Namespace, command: str) -> None:
    """Raise ``UsageError`` unless ids or a task are chosen."""
    if chosen.all and chosen.ids:
        raise UsageError(f"{command}: give ids or --all, not both")
    if chosen.all and chosen.task is None:
        raise UsageError(f"{command}: --all needs --task NAME")
    if chosen.task is not None and not chosen.all:
        raise UsageError(f"{command}: --task NAME goes with --all")
    if not chosen.all and not chosen.ids:
        raise UsageError(f"{command}: which? Give ids, or --all --task NAME")


def whole_ids(session: Session, typed: Sequence[str]) -> list[str]:
    """The ids of the entries that the operator means, each once; see ``whole_id``.

    Raises ``UnknownEntriesError`` for ids and beginnings that no entry has.
    """
    found = {each: whole_id(session, OutboxEntry.id, each) for each in typed}
    unknown = [each for each, entry_id in found.items() if entry_id is None]
    if unknown:
        raise UnknownEntriesError(unknown)
    return list(dict.fromkeys(entry_id for entry_id in found.values() if entry_id is not None))


def whole_id(session: Session, column: InstrumentedAttribute[Any], typed: str) -> str | None:
    """The id in ``column`` that is ``typed``, else the only one that begins so; ``None``: none.

    Raises ``UsageError`` where several begin so. Reads the whole index.
    """
    ids: ColumnElement[str] = column.expression
    if not isinstance(column.type, String):
        ids = cast(column, String)
    if session.scalar(select(column).where(ids == typed)) is not None:
        return typed
    if not typed:
        raise UsageError("an id is empty")
    found = session.scalars(
        select(ids)
        .where(func.substr(ids, 1, len(typed)) == typed)
        .order_by(ids)
        .limit(CANDIDATES + 1)
    ).all()
    if len(found) > 1:
        listed = ", ".join(found[:CANDIDATES]) + (" and more" if len(found) > CANDIDATES else "")
        raise UsageError(f"{typed!r} is the beginning of several ids: {listed}. Type more of it")
    return found[0] if found else None


def batches(change: Callable[[Session], list[str]]) -> Iterator[list[str]]:
    """The ids that each call of ``change`` returns, until it returns none.

    Each call is a short transaction, so that workers and publishers go on meanwhile.
    """
    while True:
        with db.transaction() as session:
            changed = change(session)
        if not changed:
            return
        yield changed


def short_ids(ids: Sequence[str]) -> list[str]:
    """Beginnings of the ids that are as long as a table has room for, or as they must differ."""
    differ = len(set(ids))
    sizes = range(SHORT_ID, max(map(len, ids), default=0) + SHORT_ID)
    length = next(size for size in sizes if len({each[:size] for each in ids}) == differ)
    return [each[:length] for each in ids]


def attempts(entry: OutboxEntry) -> int:
    """How many attempts have ended, or were given up with the entry."""
    return entry.tries + (entry.state in {OutboxState.DONE, OutboxState.DEAD})


def described(entry: OutboxEntry) -> dict[str, Any]:
    """All that the entry tells, for JSON."""
    return {
        "id": entry.id,
        "task": entry.task,
        "state": entry.state.value,
        "args": entry.args,
        "kwargs": entry.kwargs,
        "key": entry.key,
        "queue": entry.queue,
        "urgency": _urgency(entry),
        "created_at": entry.created_at,
        "due_at": entry.due_at,
        "published_at": entry.published_at,
        "finished_at": entry.finished_at,
        "tries": entry.tries,
        "retrying_since": entry.retrying_since,
        "waits_for": waits_for(entry),
        "publishes": entry.publishes,
        "resent": entry.resent,
        "deliveries": entry.deliveries,
        "errors": entry.errors,
    }


def waits_for(entry: OutboxEntry) -> str | None:
    """What postpones the next attempt, such as a rate limit; None where nothing does."""
    waits = entry.state is OutboxState.PENDING and entry.published_at is None
    return printable(entry.waits_for) if waits and entry.waits_for else None


def and_why(entry: OutboxEntry) -> str:
    """Return the words behind the due time of an entry that something postpones."""
    reason = waits_for(entry)
    return f", waits for {reason}" if reason else ""


def last_error(entry: OutboxEntry) -> str:
    """The error that it failed with last; empty where it never did."""
    return str(entry.errors[-1].get("error", "")) if entry.errors else ""


def errors_of(entry: OutboxEntry) -> list[str]:
    """When each attempt failed, to the second, and with what, in a line each."""
    lines = []
    for error in entry.errors:
        at = datetime.fromisoformat(error["at"]) if "at" in error else None
        lines.append(f"{instant(at)}  {one_line(str(error.get('error', '')))}")
    return lines


def show(entry: OutboxEntry, *, waiting: timedelta) -> None:
    """Print the entry: what became of it, its facts, each error, the last traceback."""
    print(f"{entry.id}: {_verdict(entry, waiting)}")
    print()
    figures(
        [
            ("task", printable(entry.task)),
            ("arguments", _arguments(entry)),
            ("key", printable(entry.key) if entry.key else "-"),
            ("queue", f"{printable(entry.queue)}, urgency {_urgency(entry)}"),
            ("created", instant(entry.created_at)),
            ("due", instant(entry.due_at)),
            ("published", instant(entry.published_at)),
            ("finished", instant(entry.finished_at)),
            ("attempts", f"{entry.tries} rescheduled, {entry.deliveries} redelivered"),
            ("retrying", _since(entry)),
            ("publishes", f"{entry.publishes} in this attempt, {entry.resent} resent in all"),
        ]
    )
    for error in entry.errors:
        print()
        print(f"failed at {error.get('at', '-')}")
        _indented(str(error.get("error", "")))
    traceback = next((e["traceback"] for e in reversed(entry.errors) if "traceback" in e), None)
    if traceback:
        print()
        print("the last traceback")
        _indented(str(traceback))


def _since(entry: OutboxEntry) -> str:
    return f"since {instant(entry.retrying_since)}" if entry.retrying_since else "-"


def _indented(text: str) -> None:
    for line in text.splitlines():
        print(f"  {printable(line)}")


def _verdict(entry: OutboxEntry, waiting: timedelta) -> str:
    match entry.state:
        case OutboxState.DEAD:
            return f"dead, {one_line(last_error(entry))}"
        case OutboxState.PENDING if waiting < timedelta(0):
            return f"pending, due in {age(-waiting)}{and_why(entry)}"
        case OutboxState.PENDING if entry.published_at is None:
            return f"pending, due for {age(waiting)}, not published"
        case OutboxState.PENDING:
            return f"pending, published to {printable(entry.queue)}, due for {age(waiting)}"
        case _:
            return entry.state.value


def _arguments(entry: OutboxEntry) -> str:
    words = [repr(arg) for arg in entry.args]
    words += [f"{name}={value!r}" for name, value in entry.kwargs.items()]
    return printable(", ".join(words)) or "-"


def _urgency(entry: OutboxEntry) -> int:
    return routing.MOST_URGENT - entry.priority
