"""One outbox entry, for a person and for a machine."""

from datetime import timedelta
from typing import Any

from app import routing
from app.admin.output import age, figures, instant
from app.domain.errors import one_line, printable
from app.models import OutboxEntry, OutboxState

SHOWN = 50
"""Rows of a list for a person; a machine gets all."""


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
        "publishes": entry.publishes,
        "resent": entry.resent,
        "deliveries": entry.deliveries,
        "errors": entry.errors,
    }


def last_error(entry: OutboxEntry) -> str:
    """The error that it failed with last; empty where it never did."""
    return str(entry.errors[-1].get("error", "")) if entry.errors else ""


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
            ("tries", f"{entry.tries} put back, {entry.deliveries} redelivered"),
            ("publishes", f"{entry.publishes} in this try, {entry.resent} resent in all"),
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


def _indented(text: str) -> None:
    for line in text.splitlines():
        print(f"  {printable(line)}")


def _verdict(entry: OutboxEntry, waiting: timedelta) -> str:
    match entry.state:
        case OutboxState.DEAD:
            return f"dead, {one_line(last_error(entry))}"
        case OutboxState.PENDING if waiting < timedelta(0):
            return f"pending, due in {age(-waiting)}"
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
