"""``python -m app.admin outbox``: does the outbox keep up, and what is with one entry."""

import argparse
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from itertools import chain
from typing import Any

from app import clock, db, schema
from app.admin import entries, task_names
from app.admin.arguments import add_json, add_yes, confirm
from app.admin.output import age, as_json, figures, several, table
from app.domain.errors import one_line
from app.models import OutboxEntry, OutboxState
from app.outbox import BrokerUnavailableError, dead_letters, guard, pending, status
from app.outbox.dead_letters import UnknownEntriesError
from app.outbox.figures import Retrying
from app.outbox.publish import attached
from app.outbox.status import Status, Wanted
from app.services import health, queues

COMMAND = "python -m app.admin outbox"
PUMP_PATIENCE = timedelta(minutes=1)
"""A due entry that waits unpublished for longer says that nobody pumps: beat pauses at
most half a minute between two tries."""


def add_to(topics: Any) -> None:
    """Add the topic's commands to the parser."""
    topic = topics.add_parser("outbox", help="work that is planned, waiting and done")
    actions = topic.add_subparsers(dest="action", required=True)
    overview = actions.add_parser("status", help="how much waits, and for how long")
    overview.add_argument("--by-task", action="store_true", help="also the figures of each task")
    overview.set_defaults(run=_status)
    listed = actions.add_parser("list", help="entries of a state: pending where none is given")
    listed.add_argument(
        "--state",
        choices=status.STATES,
        default="pending",
        help=f"pending is all of {', '.join(status.PENDING[1:])}",
    )
    listed.add_argument("--task", metavar="NAME", help="only of this task")
    listed.add_argument("--queue", metavar="NAME", help="only of this queue")
    listed.set_defaults(run=_list)
    show = actions.add_parser("show", help="one entry, whatever its state")
    show.add_argument("id", metavar="ID", help="an id, or a unique beginning of one")
    show.set_defaults(run=_show)
    retry = actions.add_parser(
        "retry", help="make the next attempt of failed or postponed work due now"
    )
    retry.set_defaults(run=_retry)
    cancel = actions.add_parser("cancel", help="cancel pending entries")
    add_yes(cancel)
    cancel.set_defaults(run=_cancel)
    for action in (retry, cancel):
        entries.add_choice(action)
    for action in (overview, listed, show, retry, cancel):
        add_json(action)


def _status(chosen: argparse.Namespace) -> int:
    schema.check(db.engine())
    with db.reading() as session:
        now = clock.utcnow()
        seen = status.read(session, now=now)
        retrying = health.retrying(session, now=now)
        tasks = status.by_task(session, now=now) if chosen.by_task else None
    silence = broker_silence()
    if chosen.json:
        counted = asdict(seen)
        for name in ("oldest", "oldest_unpublished"):
            counted[f"{name}_seconds"] = counted.pop(name)
        counted["retrying"] = {task: asdict(each) for task, each in retrying.items()}
        if tasks is not None:
            counted["tasks"] = {task: _of_task(each) for task, each in tasks.items()}
        counted["redis"] = "ok" if silence is None else "down"
        as_json(counted)
        return 0
    print(_verdict(seen, retrying))
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
    if retrying:
        print()
        table(
            ("RETRYING", "ENTRIES", "FOR", "MOST FREQUENT ERROR"),
            [
                (task, f"{each.number:,}", _seconds(each.oldest_seconds), each.error)
                for task, each in retrying.items()
            ],
            numbers=(1,),
        )
    if tasks:
        print()
        table(
            ("TASK", "PENDING", "RETRYING", "DEAD", "OLDEST DUE FOR"),
            [
                (task, f"{each.pending:,}", f"{each.retrying:,}", f"{each.dead:,}", _age(each))
                for task, each in tasks.items()
            ],
            numbers=(1, 2, 3),
        )
    print()
    print(f"{COMMAND} list | show ID | retry ID | cancel ID")
    if seen.dead:
        print("python -m app.admin deadletters list")
    return 0


def _of_task(counts: status.OfTask) -> dict[str, Any]:
    figures = asdict(counts)
    figures["oldest_seconds"] = figures.pop("oldest")
    return figures


def _age(counts: status.OfTask) -> str:
    return "-" if counts.oldest is None else age(counts.oldest)


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else age(timedelta(seconds=seconds))


def _list(chosen: argparse.Namespace) -> int:
    schema.check(db.engine())
    wanted = Wanted(chosen.state, task=chosen.task, queue=chosen.queue)
    now = clock.utcnow()
    with db.reading() as session:
        found = status.find(session, wanted, now=now, limit=None if chosen.json else entries.SHOWN)
        total = len(found) if chosen.json else status.count(session, wanted, now=now)
    if not found:
        _check_names(wanted)
    if chosen.json:
        as_json([entries.described(entry) for entry in found])
        return 0
    asked = (f" of {chosen.task}" if chosen.task else "") + (
        f" in {chosen.queue}" if chosen.queue else ""
    )
    if not found:
        print(f"nothing{asked} is {chosen.state}")
        return 0
    ended = chosen.state in status.ENDED
    order = "latest" if ended else "longest due"
    print(f"{several(total, f'{chosen.state} entry')}{asked}, the {order} first")
    short = dict(zip(found, entries.short_ids([entry.id for entry in found]), strict=True))
    for task in dict.fromkeys(entry.task for entry in found):
        of_task = [entry for entry in found if entry.task == task]
        print()
        print(f"{one_line(task)}: {len(of_task):,}")
        table(
            ("ID", "STATE", "QUEUE", "ATTEMPTS", "ENDED" if ended else "DUE", "LAST ERROR"),
            [
                (
                    short[entry],
                    status.stage(entry, now=now),
                    entry.queue,
                    entries.attempts(entry),
                    _when(entry.finished_at or entry.created_at, now)
                    if ended
                    else _due(entry, now),
                    entries.last_error(entry),
                )
                for entry in of_task
            ],
            numbers=(3,),
        )
    print()
    if total > len(found):
        print(f"{total - len(found):,} more are not shown: --json lists all")
    print(f"{COMMAND} show ID | retry ID | cancel ID")
    return 0


def _due(entry: OutboxEntry, now: datetime) -> str:
    when = _when(entry.due_at, now)
    return when + entries.and_why(entry) if entry.due_at > now else when


def _check_names(wanted: Wanted) -> None:
    """Raise ``UsageError`` for an unknown task, ``UnknownQueueError`` for an unknown queue."""
    if wanted.task is not None:
        task_names.check(wanted.task)
    if wanted.queue is not None:
        queues.check([wanted.queue])


def _when(instant: datetime, now: datetime) -> str:
    return f"in {age(instant - now)}" if instant > now else f"{age(now - instant)} ago"


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


def _verdict(seen: Status, retrying: Mapping[str, Retrying]) -> str:
    if seen.oldest_unpublished is not None and seen.oldest_unpublished > PUMP_PATIENCE:
        return (
            f"{several(seen.unpublished, 'due entry')} not published, the oldest for "
            f"{age(seen.oldest_unpublished)}: does beat run, does Redis answer?"
        )
    if retrying:
        number = sum(each.number for each in retrying.values())
        oldest = max((each.oldest_seconds or 0 for each in retrying.values()), default=0)
        are = "has failed and is" if number == 1 else "have failed and are"
        return f"{several(number, 'entry')} {are} retried, the oldest for {_seconds(oldest)}"
    if seen.dead:
        return f"{several(seen.dead, 'dead letter')}, the rest goes on"
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
    print()
    if entry.state is OutboxState.PENDING:
        retry = f"retry {entry.id} | " if entry.tries or entries.waits_for(entry) else ""
        print(f"{COMMAND} {retry}cancel {entry.id}")
    if entry.state is OutboxState.DEAD:
        print(f"python -m app.admin deadletters retry {entry.id}")
    return 0


def _retry(chosen: argparse.Namespace) -> int:
    entries.check_choice(chosen, f"{COMMAND} retry")
    schema.check(db.engine())
    now = clock.utcnow()
    left: dict[str, str] = {}
    if chosen.all:
        retried = _attempt_all_now(chosen.task, now)
    else:
        with db.reading() as session:
            ids = entries.whole_ids(session, chosen.ids)
        with db.transaction() as session:
            due = pending.attempt_now(session, ids, now=now)
            due += dead_letters.retry(session, ids, now=now).retried
            retried = [entry_id for entry_id in ids if entry_id in due]
            for entry_id in ids:
                entry = None if entry_id in due else status.entry(session, entry_id)
                if entry is not None:
                    left[entry_id] = _why_left(entry, now)
    forbidden = not {"later", "cancelled"}.isdisjoint(left.values())
    if chosen.json:
        as_json({"retried": retried, "left": left})
        return int(forbidden)
    of_task = f" of {chosen.task}" if chosen.all else ""
    are = "is" if len(retried) == 1 else "are"
    print(f"{several(len(retried), 'entry')}{of_task} {are} due now")
    for entry_id, why in left.items():
        print(f"{entry_id} is {_LEFT.get(why, why)}: left as it is")
    if retried:
        print("beat publishes them within seconds")
    return int(forbidden)


_LEFT = {
    "later": "planned for later and has not failed",
    "published": "published already",
    "unpublished": "due already",
}


def _why_left(entry: OutboxEntry, now: datetime) -> str:
    """The state that keeps an entry from being made due."""
    if entry.state is not OutboxState.PENDING:
        return entry.state.value
    if entry.published_at is not None:
        return "published"
    return "later" if entry.due_at > now else "unpublished"


def _attempt_all_now(task: str, now: datetime) -> list[str]:
    with db.reading() as session:
        waiting = status.count(session, Wanted("retrying", task=task), now=now)
    if not waiting:
        task_names.check(task)
    made = entries.batches(lambda session: pending.attempt_all_now(session, task, now=now))
    return [*chain.from_iterable(made)]


def _cancel(chosen: argparse.Namespace) -> int:
    entries.check_choice(chosen, f"{COMMAND} cancel")
    schema.check(db.engine())
    if chosen.all:
        return _cancel_all(chosen)
    with db.reading() as session:
        ids = entries.whole_ids(session, chosen.ids)
        states = dead_letters.states(session, ids)
    number = list(states.values()).count(OutboxState.PENDING)
    if number > 1:
        confirm(f"Cancel {several(number, 'pending entry')}?", yes=chosen.yes)
    cancelled = {entry_id for entry_id in ids if _cancel_one(entry_id)}
    with db.reading() as session:
        left = dict.fromkeys(ids, "purged") | dead_letters.states(session, ids)
    if chosen.json:
        told = [
            {"id": each, "cancelled": each in cancelled, "state": state}
            for each, state in left.items()
        ]
        as_json(told if len(ids) > 1 else told[0])
    else:
        for each, state in left.items():
            if each in cancelled:
                print(f"{each} is cancelled: a message of it that still comes is skipped")
            else:
                print(f"{each} is {state}: left as it is")
    return int(set(left.values()) != {OutboxState.CANCELLED})


def _cancel_one(entry_id: str) -> bool:
    # A transaction for each: it waits for a task that has marked its entry, and locks no other.
    with db.transaction() as session:
        return guard.cancel(session, entry_id, now=clock.utcnow())


def _cancel_all(chosen: argparse.Namespace) -> int:
    until = clock.utcnow()
    with db.reading() as session:
        number = status.count(session, Wanted(task=chosen.task), now=until)
    if not number:
        task_names.check(chosen.task)
    if number > 1:
        question = f"Cancel {several(number, 'pending entry')} of {chosen.task}?"
        confirm(question, yes=chosen.yes)
    batches = entries.batches(
        lambda session: pending.cancel_batch(
            session, OutboxEntry.task == chosen.task, until=until, now=clock.utcnow()
        )
    )
    cancelled = sum(map(len, batches))
    if chosen.json:
        as_json({"cancelled": cancelled})
        return 0
    are = "is" if cancelled == 1 else "are"
    print(f"{several(cancelled, 'entry')} of {chosen.task} {are} cancelled")
    return 0


def _found(typed: str) -> OutboxEntry:
    with db.reading() as session:
        (entry_id,) = entries.whole_ids(session, [typed])
        entry = status.entry(session, entry_id)
    if entry is None:
        raise UnknownEntriesError([typed])
    return entry
