"""``python -m app.admin database``: the database's schema."""

import argparse
from typing import Any

from app import db, schema


def add_to(topics: Any) -> None:
    """Add the topic's commands to the parser."""
    topic = topics.add_parser("database", help="the database's schema")
    topic.add_argument("action", choices=("upgrade", "check"))
    topic.set_defaults(run=_run)


def _run(chosen: argparse.Namespace) -> int:
    return _upgrade() if chosen.action == "upgrade" else _check()


def _upgrade() -> int:
    changed = schema.upgrade(db.engine())
    revision = schema.current_of(db.engine())
    if schema.is_newer(revision):
        print(_newer_and_fits(revision))
    else:
        print(f"the database is {'now' if changed else 'already'} at revision {revision}")
    return 0


def _check() -> int:
    revision = schema.current_of(db.engine())
    if schema.is_newer(revision):
        schema.check(db.engine())
        print(_newer_and_fits(revision))
        return 0
    if revision == schema.newest():
        print(f"the database is at revision {revision}, the newest")
        return 0
    print(
        f"the database is at revision {revision or 'nothing'}, the newest is {schema.newest()}: "
        f"run {schema.UPGRADE_COMMAND}"
    )
    return 1


def _newer_and_fits(revision: str | None) -> str:
    return (
        f"the database is at revision {revision}, newer than this code's {schema.newest()}, and "
        "has all that this code needs"
    )
