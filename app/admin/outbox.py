"""``python -m app.admin outbox``: does the outbox keep up, and what is with one entry."""

import argparse
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from app import clock, db, schema
from app.admin import entries, task_names
from app.admin.arguments import add_json
from app.admin.output import age, as_json, figures, several, table
from app.models import OutboxEntry, OutboxState
from app.outbox import BrokerUnavailableError, guard, status
from app.outbox.dead_letters import UnknownEntriesError
from app.outbox.publish import attached
from app.outbox.status import Status

COMMAND = "python -m app.admin outbox"
PUMP_PATIENCE = timedelta(minutes=1)
"""A due entry that waits unpublished for longer says that nobody pumps: beat pauses at
most half a minute between two tries."""


def add_to(topics: Any) -> None:
    """Add the topic's commands to the parser."""
    topic = topics.add_parser("outbox", help="work that is planned, waiting and done")
    actions = topic.add_subparsers(dest="action", required=True)
    overview = actions.add_parser("status", help="how much waits, and for how long")
    overview.set_defaults(run=_status)
    listed = actions.add_parser("list", help="what is pending, the longest due first")
    listed.add_argument("--task", metavar="NAME", help="only of this task")
    listed.set_defaults(run=_list)
    show = actions.add_parser("show", help="one entry, whatever its state")
    show.set_defaults(run=_show)
    cancel = actions.add_parser("cancel", help="cancel a pending entry")
    cancel.set_defaults(run=_cancel)
    for action in (show, cancel):
        action.add_argument("id", metavar="ID")
    for action in (overview, listed, show, cancel):
        add_json(action)


def _status(chosen: argparse.Namespace) -> int:
    schema.check(db.engine())
    with db.reading() as session:
        seen = status.read(session, now=clock.utcnow())
    silence = broker_silence()
    if chosen.json:
        counted = asdict(seen)
        for name in ("oldest", "oldest_unpublished"):
            counted[f"{name}_seconds"] = counted.pop(name)
        counted["redis"] = "ok" if silence is None else "down"
        as_json(counted)
        return 0
    print(_verdict(seen))
    if silence is not None:
        print(f"nothing can be published now: {silence}")
    print()
    oldest = "" if seen.oldest is None else f"  the oldest due for {age(seen.oldest)}"
    figures(
        [
            ("pending", f"{seen.pending:>9,}{oldest}"),
            ("  published", f"{seen.published:>9,}  in the broker, or with a worker"),
            ("  unpublished", f"{seen.unpublished:>9,}  due, beat publishes them within seconds"),
            ("  later", f"{seen.later:>9,}  due in the future: planned, or a retry"),
            ("gone and resent", f"{seen.resent:>9,}  messages that the broker had lost"),
            ("done", f"{seen.done:>9,}"),
            ("dead", f"{seen.dead:>9,}"),
            ("cancelled", f"{seen.cancelled:>9,}"),
        ]
    )
    print()
    print(f"{COMMAND} list | show ID | cancel ID")
    if seen.dead:
        print("python -m app.admin deadletters list")
    return 0


def _list(chosen: argparse.Namespace) -> int:
    schema.check(db.engine())
    with db.reading() as session:
        found = status.pending(
            session, task=chosen.task, limit=None if chosen.json else entries.SHOWN
        )
    if not found and chosen.task is not None:
        task_names.check(chosen.task)
    if chosen.json:
        as_json([entries.described(entry) for entry in found])
        return 0
    of_task = f" of {chosen.task}" if chosen.task else ""
    if not found:
        print(f"nothing{of_task} is pending")
        return 0
    with db.reading() as session:
        total = status.count_pending(session, task=chosen.task)
    print(f"{several(total, 'pending entry')}{of_task}, the longest due first")
    print()
    now = clock.utcnow()
    table(
        ("ID", "DUE", "WHERE", "TASK"),
        [(entry.id, *_due_and_where(entry, now), entry.task) for entry in found],
    )
    print()
    if total > len(found):
        print(f"{total - len(found):,} more are not shown: --json lists all")
    print(f"{COMMAND} show ID | cancel ID")
    return 0


def _due_and_where(entry: OutboxEntry, now: datetime) -> tuple[str, str]:
    if entry.due_at > now:
        return f"in {age(entry.due_at - now)}", "later"
    where = "unpublished" if entry.published_at is None else entry.queue
    return f"{age(now - entry.due_at)} ago", where


def broker_silence() -> str | None:
    """Why Redis does not answer; ``None`` where it does."""
    # Not at the top: the other commands need no Celery, which takes a second to import. It
    # attaches the broker.
    import app.tasks  # noqa: F401

    broker = attached()
    if broker is None:
        return None
    try:
        broker.now()
    except BrokerUnavailableError as error:
        return str(error)
    return None


def _verdict(seen: Status) -> str:
    if seen.oldest_unpublished is not None and seen.oldest_unpublished > PUMP_PATIENCE:
        return (
            f"{several(seen.unpublished, 'due entry')} not published, the oldest for "
            f"{age(seen.oldest_unpublished)}: does beat run, does Redis answer?"
        )
    if seen.dead:
        return f"{several(seen.dead, 'dead letter')}; the rest goes on"
    due = seen.published + seen.unpublished
    if not due:
        return "nothing waits"
    return (
        f"{several(due, 'entry')} under way, the oldest due for {age(seen.oldest or timedelta(0))}"
    )


def _show(chosen: argparse.Namespace) -> int:
    schema.check(db.engine())
    entry = _found(chosen.id)
    if chosen.json:
        as_json(entries.described(entry))
        return 0
    entries.show(entry, waiting=clock.utcnow() - entry.due_at)
    if entry.state is OutboxState.PENDING:
        print()
        print(f"{COMMAND} cancel {entry.id}")
    if entry.state is OutboxState.DEAD:
        print()
        print(f"python -m app.admin deadletters retry {entry.id}")
    return 0


def _cancel(chosen: argparse.Namespace) -> int:
    schema.check(db.engine())
    _found(chosen.id)
    with db.transaction() as session:
        cancelled = guard.cancel(session, chosen.id, now=clock.utcnow())
    entry = _found(chosen.id)
    if chosen.json:
        as_json({"id": entry.id, "cancelled": cancelled, "state": entry.state})
    elif cancelled:
        print(f"{entry.id} is cancelled: a message of it that still comes is skipped")
    else:
        print(f"{entry.id} is {entry.state}: left as it is")
    return 0 if entry.state is OutboxState.CANCELLED else 1


def _found(entry_id: str) -> OutboxEntry:
    with db.reading() as session:
        entry = status.entry(session, entry_id)
    if entry is None:
        raise UnknownEntriesError([entry_id])
    return entry
