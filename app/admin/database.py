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
    if not changed and _is_newer():
        return 0
    print(f"the database is {'now' if changed else 'already'} at revision {schema.newest()}")
    return 0


def _check() -> int:
    revision = schema.current_of(db.engine())
    if revision == schema.newest():
        print(f"the database is at revision {revision}, the newest")
        return 0
    if _is_newer():
        return 0
    print(
        f"the database is at revision {revision or 'nothing'}, the newest is {schema.newest()}: "
        f"run {schema.UPGRADE_COMMAND}"
    )
    return 1


def _is_newer() -> bool:
    """Whether a newer version has upgraded it; says so where it fits this code, else raises."""
    revision = schema.current_of(db.engine())
    if not schema.is_newer(revision):
        return False
    schema.check(db.engine())
    print(
        f"the database is at revision {revision}, newer than this code's {schema.newest()}, and "
        "has all that this code needs"
    )
    return True


def need_tables() -> None:
    """Raise ``DatabaseNotReadyError`` where the tables are not what this code needs."""
    schema.check(db.engine())
