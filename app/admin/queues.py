"""``python -m app.admin queues``: what waits in each queue, and stopping one for a while."""

import argparse
from datetime import datetime
from typing import Any

from sqlalchemy import func, select

from app import clock, db, schema
from app.admin.arguments import add_json
from app.admin.output import age, as_json, several, table
from app.models import OutboxEntry
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
    for action in (listed, pause, resume):
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
    print(f"{COMMAND} pause NAME...    workers take nothing from them; planning goes on")
    print(f"{COMMAND} resume NAME...")
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


def _told(chosen: argparse.Namespace, changed: list[str], verb: str, otherwise: str) -> int:
    if chosen.json:
        as_json({verb: changed})
        return 0
    for name in dict.fromkeys(chosen.names):
        print(f"{name} is {verb}" if name in changed else f"{name} {otherwise}")
    if changed:
        print("all workers obey within seconds; what is running goes on")
    return 0


def _state(paused_at: datetime | None) -> str:
    return "" if paused_at is None else f"paused for {age(clock.utcnow() - paused_at)}"
