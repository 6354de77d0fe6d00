"""``python -m app.admin queues``: what waits in each queue; pause, resume and purge one."""

import argparse
from datetime import datetime
from typing import Any

from sqlalchemy import func, select

from app import clock, db, schema
from app.admin import entries
from app.admin.arguments import UsageError, add_json, add_yes, confirm
from app.admin.output import age, as_json, several, table
from app.models import OutboxEntry
from app.outbox import pending
from app.outbox.broker import Broker, BrokerUnavailableError
from app.outbox.publish import attached
from app.routing import QUEUES
from app.services import queues

COMMAND = "python -m app.admin queues"


def add_to(topics: Any) -> None:
    """Add the topic's commands to the parser."""
    topic = topics.add_parser("queues", help="the queues, and pausing them")
    actions = topic.add_subparsers(dest="action", required=True)
    listed = actions.add_parser("list", help="each queue, the most urgent first")
    listed.set_defaults(run=_list)
    pause = actions.add_parser("pause", help="let workers take nothing from these queues")
    pause.set_defaults(run=_pause)
    resume = actions.add_parser("resume", help="let workers take from them again")
    resume.set_defaults(run=_resume)
    for action in (pause, resume):
        action.add_argument("names", nargs="+", metavar="NAME")
    purge = actions.add_parser(
        "purge",
        help="cancel all pending work of a queue",
        description="Cancel every pending entry of the queue, also those that are due later, "
        "and remove its messages from Redis. A task that a worker already holds has no effect "
        "any more, unless it has committed it.",
    )
    purge.add_argument("name", metavar="NAME")
    add_yes(purge)
    purge.set_defaults(run=_purge)
    for action in (listed, pause, resume, purge):
        add_json(action)


def _list(chosen: argparse.Namespace) -> int:
    schema.check(db.engine())
    with db.reading() as session:
        paused = queues.paused(session)
        waiting: dict[str, int] = dict(
            session.execute(
                select(OutboxEntry.queue, func.count())
                .where(OutboxEntry.pending(), OutboxEntry.due_at <= clock.utcnow())
                .group_by(OutboxEntry.queue)
            ).all()
        )
    rows: list[dict[str, Any]] = [
        {
            "queue": spec.name,
            "urgency": spec.urgency,
            "paused_at": paused.get(spec.name),
            "due": waiting.get(spec.name, 0),
        }
        for spec in sorted(QUEUES, key=lambda spec: -spec.urgency)
    ]
    if chosen.json:
        as_json(rows)
        return 0
    print(f"{several(len(QUEUES), 'queue')}, {len(paused)} paused")
    print()
    table(
        ("QUEUE", "URGENCY", "DUE", "STATE"),
        [(row["queue"], row["urgency"], row["due"], _state(row["paused_at"])) for row in rows],
        numbers=(1, 2),
    )
    print()
    print(f"{COMMAND} pause NAME...    workers take nothing from them, planning goes on")
    print(f"{COMMAND} resume NAME...")
    print(f"{COMMAND} purge NAME       cancels all pending work of the queue")
    return 0


def _pause(chosen: argparse.Namespace) -> int:
    schema.check(db.engine())
    with db.transaction() as session:
        changed = queues.pause(session, chosen.names, now=clock.utcnow())
    return _told(chosen, changed, "paused", "was paused already")


def _resume(chosen: argparse.Namespace) -> int:
    schema.check(db.engine())
    with db.transaction() as session:
        changed = queues.resume(session, chosen.names)
    return _told(chosen, changed, "resumed", "was not paused")


def _purge(chosen: argparse.Namespace) -> int:
    schema.check(db.engine())
    name = chosen.name
    with db.reading() as session:
        planned = queues.pending(session, name)
    broker, waiting = _messages(name)
    if planned or waiting:
        confirm(
            f"Cancel {several(planned, 'pending entry')} of {name} and remove its "
            f"{several(waiting, 'message')}?",
            yes=chosen.yes,
        )
    cancelled = _cancel_all(name)
    removed, left = 0, None
    try:
        removed = broker.purge(name)
    except BrokerUnavailableError as error:
        # Half done is safe: workers skip the messages of cancelled entries.
        left = str(error)
    if chosen.json:
        told = {"queue": name, "cancelled": cancelled, "removed": removed}
        as_json(told if left is None else told | {"error": left})
    elif left is not None:
        print(f"{name}: {several(cancelled, 'entry')} cancelled, its messages are left: {left}")
        print(f"workers skip messages of cancelled entries. For others: {COMMAND} purge {name}")
    elif cancelled or removed:
        print(
            f"{name} is purged: {several(cancelled, 'entry')} cancelled, "
            f"{several(removed, 'message')} removed"
        )
        print("what a worker already holds is skipped, unless its effect is committed")
    else:
        print(f"nothing waits in {name}")
    return int(left is not None)


def _messages(name: str) -> tuple[Broker, int]:
    """The broker, and how many messages wait in the queue. Raises ``UsageError`` without it."""
    # Not at the top: the other commands need no Celery, which takes a second to import. It
    # attaches the broker.
    import app.tasks  # noqa: F401

    broker = attached()
    try:
        if broker is None:
            raise BrokerUnavailableError("no broker is attached")
        return broker, broker.depths([name])[name].waiting
    except BrokerUnavailableError as error:
        raise UsageError(f"{COMMAND} purge: nothing was changed: {error}") from None


def _cancel_all(name: str) -> int:
    until = clock.utcnow()
    batches = entries.batches(
        lambda session: pending.cancel_batch(
            session, OutboxEntry.queue == name, until=until, now=clock.utcnow()
        )
    )
    return sum(map(len, batches))


def _told(chosen: argparse.Namespace, changed: list[str], verb: str, otherwise: str) -> int:
    if chosen.json:
        as_json({verb: changed})
        return 0
    for name in dict.fromkeys(chosen.names):
        print(f"{name} is {verb}" if name in changed else f"{name} {otherwise}")
    if changed:
        print("all workers obey within seconds. What is running goes on")
    return 0


def _state(paused_at: datetime | None) -> str:
    return "" if paused_at is None else f"paused for {age(clock.utcnow() - paused_at)}"
