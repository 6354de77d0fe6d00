"""``python -m app.admin deadletters``: what failed for good, and running it again."""

import argparse
import sys
from datetime import timedelta
from itertools import chain
from typing import Any

from sqlalchemy.orm import Session

from app import clock, db, schema
from app.admin import entries, task_names
from app.admin.arguments import UsageError, add_json, add_yes, confirm, duration
from app.admin.output import age, as_json, exact, several, table
from app.domain.errors import one_line, printable
from app.models import OutboxEntry, OutboxState
from app.outbox import dead_letters, status

COMMAND = "python -m app.admin deadletters"


def add_to(topics: Any) -> None:
    """Add the topic's commands to the parser."""
    topic = topics.add_parser("deadletters", help="tasks that failed for good")
    actions = topic.add_subparsers(dest="action", required=True)

    listed = actions.add_parser("list", help="the dead letters, the latest first")
    listed.add_argument("--task", metavar="NAME", help="only of this task")
    listed.add_argument(
        "--since", type=duration, metavar="2h", help="only what died in this time: 30s, 5m, 2h, 30d"
    )
    listed.set_defaults(run=_list)

    show = actions.add_parser("show", help="one dead letter, with every error")
    show.add_argument("id", metavar="ID", help="an id, or a unique beginning of one")
    show.set_defaults(run=_show)

    retry = actions.add_parser("retry", help="run dead letters again, under the same ids")
    entries.add_choice(retry)
    retry.set_defaults(run=_retry)

    purge = actions.add_parser("purge", help="delete dead letters")
    purge.add_argument("ids", nargs="*", metavar="ID", help="ids, or unique beginnings of ids")
    purge.add_argument(
        "--before",
        type=duration,
        metavar="30d",
        help="those that died longer ago than this: 30s, 5m, 2h, 30d",
    )
    add_yes(purge)
    purge.set_defaults(run=_purge)
    for action in (listed, show, retry, purge):
        add_json(action)


def _list(chosen: argparse.Namespace) -> int:
    schema.check(db.engine())
    now = clock.utcnow()
    since = None if chosen.since is None else now - chosen.since
    with db.reading() as session:
        counts = dead_letters.count(session, task=chosen.task, since=since)
        letters = dead_letters.find(
            session, task=chosen.task, since=since, limit=None if chosen.json else entries.SHOWN
        )
        if not letters:
            _check_task(session, chosen.task)
    if chosen.json:
        as_json([_summary(letter) for letter in letters])
        return 0
    asked = (f" of {chosen.task}" if chosen.task else "") + (
        f" in the last {exact(chosen.since)}" if chosen.since is not None else ""
    )
    if not letters:
        print(f"no dead letters{asked}")
        return 0
    total = sum(counts.values())
    print(f"{several(total, 'dead letter')}{asked}, the latest {_ago(letters[0])} ago")
    for task in sorted({letter.task for letter in letters}):
        of_task = [letter for letter in letters if letter.task == task]
        print()
        print(f"{one_line(task)}: {counts.get(task, len(of_task)):,}")
        table(
            ("ID", "DIED", "ERRORS", "LAST ERROR"),
            [
                (letter.id, f"{_ago(letter)} ago", len(letter.errors), entries.last_error(letter))
                for letter in of_task
            ],
            numbers=(2,),
        )
    print()
    if total > len(letters):
        print(f"{total - len(letters):,} older ones are not shown: --json lists all")
    print(f"{COMMAND} show ID           each error, the last traceback")
    print(f"{COMMAND} retry ID...       run them again")
    print(f"{COMMAND} retry --all --task NAME")
    return 0


def _check_task(session: Session, name: str | None) -> None:
    """Raise ``UsageError`` for a task that neither the app nor any dead letter knows."""
    if name is not None and not dead_letters.find(session, task=name, limit=1):
        task_names.check(name)


def _show(chosen: argparse.Namespace) -> int:
    schema.check(db.engine())
    with db.reading() as session:
        (entry_id,) = entries.whole_ids(session, [chosen.id])
        letter = status.entry(session, entry_id)
    if letter is None:
        raise dead_letters.UnknownEntriesError([chosen.id])
    if letter.state is not OutboxState.DEAD:
        raise UsageError(
            f"{letter.id} is no dead letter, it is {letter.state}: "
            f"python -m app.admin outbox show {letter.id}"
        )
    if chosen.json:
        as_json(entries.described(letter))
        return 0
    entries.show(letter, waiting=timedelta(0))
    print()
    print(f"{COMMAND} retry {letter.id}")
    return 0


def _retry(chosen: argparse.Namespace) -> int:
    entries.check_choice(chosen, f"{COMMAND} retry")
    schema.check(db.engine())
    if chosen.all:
        with db.reading() as session:
            _check_task(session, chosen.task)
    outcome = _retry_all(chosen.task) if chosen.all else _retry_these(chosen.ids)
    cancelled = OutboxState.CANCELLED in outcome.left.values()
    _warn_of_missing_tasks(outcome.retried[: entries.SHOWN])
    if chosen.json:
        as_json({"retried": outcome.retried, "left": outcome.left})
        return int(cancelled)
    of_task = f" of {chosen.task}" if chosen.all else ""
    print(f"{several(len(outcome.retried), 'dead letter')}{of_task} will run again")
    for entry_id, state in outcome.left.items():
        print(f"{entry_id} is no dead letter, it is {state}: left as it is")
    if outcome.retried:
        print("beat publishes them within seconds. python -m app.admin outbox status")
    return int(cancelled)


def _warn_of_missing_tasks(entry_ids: list[str]) -> None:
    """Workers of another release or service may have them, so their entries are retried."""
    with db.reading() as session:
        found = [status.entry(session, entry_id) for entry_id in entry_ids]
    for task in sorted({letter.task for letter in found if letter is not None}):
        missing = task_names.missing_task(task)
        if missing is not None:
            print(f"warning: {printable(missing)}", file=sys.stderr)


def _retry_these(entry_ids: list[str]) -> dead_letters.Retried:
    with db.reading() as session:
        wanted = entries.whole_ids(session, entry_ids)
    with db.transaction() as session:
        return dead_letters.retry(session, wanted, now=clock.utcnow())


def _retry_all(task: str) -> dead_letters.Retried:
    until = clock.utcnow()
    retried = entries.batches(
        lambda session: dead_letters.retry_all(session, task, until=until, now=clock.utcnow())
    )
    return dead_letters.Retried([*chain.from_iterable(retried)])


def _purge(chosen: argparse.Namespace) -> int:
    if bool(chosen.ids) == (chosen.before is not None):
        raise UsageError(f"{COMMAND} purge: give ids, or --before 30d")
    schema.check(db.engine())
    before = ids = None
    left: dict[str, OutboxState] = {}
    with db.reading() as session:
        if chosen.ids:
            ids = entries.whole_ids(session, chosen.ids)
            states = dead_letters.states(session, ids)
            left = {each: state for each, state in states.items() if state != OutboxState.DEAD}
            number = len(ids) - len(left)
        else:
            before = clock.utcnow() - chosen.before
            number = sum(dead_letters.count(session, before=before).values())
    what = "" if chosen.before is None else f" of more than {exact(chosen.before)} ago"
    if number > 1:
        confirm(f"Delete {several(number, 'dead letter')}{what}?", yes=chosen.yes)
    purged = 0
    while True:
        with db.transaction() as session:
            batch = dead_letters.purge(session, before=before, entry_ids=ids)
        if not batch:
            break
        purged += batch
    if chosen.json:
        as_json({"purged": purged} | ({"left": left} if ids else {}))
        return 0
    print(f"{several(purged, 'dead letter')}{what} deleted")
    for entry_id, state in left.items():
        print(f"{entry_id} is {state}: left as it is")
    return 0


def _summary(letter: OutboxEntry) -> dict[str, Any]:
    whole = entries.described(letter)
    del whole["errors"]
    return {**whole, "error": entries.last_error(letter)}


def _ago(letter: OutboxEntry) -> str:
    died_at = letter.finished_at or letter.created_at
    return age(max(timedelta(0), clock.utcnow() - died_at))
