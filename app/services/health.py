"""Is all there that the work needs, and does the work go on?

Asked every minute, so nothing here reads the whole outbox: it holds a week of done entries.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, ScalarSelect, bindparam, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app import db, routing, schema
from app.adapters.mailer import MailRefusesUsError, MailTemporarilyRefusedError
from app.adapters.redis_connection import trouble
from app.models import OUTBOX_ENTRIES, OutboxEntry, PausedQueue
from app.outbox import BrokerUnavailableError
from app.outbox.broker import Broker
from app.outbox.figures import OTHER_TASKS, Retrying, first_due
from app.outbox.figures import retrying as read_retrying
from app.outbox.schedule import Kept, Standing, standings

RECENTLY = timedelta(hours=1)
"""Dead letters younger than this are counted on their own."""
BULK_PATIENCE = 4
"""Slow work may wait so many times as long."""
LONE_ERRORS = frozenset({MailTemporarilyRefusedError.__name__})
"""Errors that concern one item: a mailbox may be full for days while all other mail goes out."""
AT_ONCE = MailRefusesUsError.__name__
"""An error that only an operator can end is a problem as soon as it is a task's most frequent."""
MOST_REFUSED = 20
"""More retrying entries with such errors than this are a problem: the server refuses everything."""


@dataclass(frozen=True)
class Limits:
    """Beyond what something is a problem."""

    queue_age: timedelta
    """A message waits for longer; in a queue of slow work, ``BULK_PATIENCE`` times."""
    unpublished: timedelta
    """Due work is not published."""
    beat: timedelta
    """No beat has fired anything."""
    dead_letters: int
    """Dead letters within ``RECENTLY``."""
    retrying: timedelta
    """An entry has failed and been retried for longer."""
    clock: timedelta
    """This machine's clock is further off the broker's."""


@dataclass(frozen=True)
class Outbox:
    published: int
    """In the broker, or with a worker."""
    unpublished: int
    """Due, and not published."""
    later: int
    """Due in the future."""
    oldest_unpublished_seconds: float | None


@dataclass(frozen=True)
class DeadLetters:
    number: int
    recent: int
    """Within ``RECENTLY``."""
    newest_seconds: float | None


@dataclass(frozen=True)
class Beat:
    last_fired_seconds: float | None
    """Since the latest run of any entry was enqueued, or since entries are there that have had
    none; ``None`` where none was ever seen."""
    overdue: Mapping[str, float] = field(default_factory=dict)
    """Seconds for which entries have been overdue that a living beat has, by name."""
    conflicts: Mapping[str, tuple[Kept, ...]] = field(default_factory=dict)
    """The definitions of each entry about which living beats disagree: the one in force first,
    where a beat has it."""


@dataclass(frozen=True)
class Records:
    """What the database tells."""

    outbox: Outbox
    dead_letters: DeadLetters
    retrying: Mapping[str, Retrying]
    """Work whose last attempt failed, by task."""
    beat: Beat
    paused: tuple[str, ...]


@dataclass(frozen=True)
class Queue:
    waiting: int
    oldest_seconds: float | None
    """How long the oldest message has waited; ``None`` where none waits or none tells."""


@dataclass(frozen=True)
class Health:
    """What was found; ``problems`` says in one line each what is not as it should be."""

    problems: tuple[str, ...] = ()
    records: Records | None = None
    """``None`` where the database did not answer."""
    queues: Mapping[str, Queue] | None = None
    """``None`` where the broker did not answer, as the next one."""
    clock_offset_seconds: float | None = None
    """By which this machine's clock is ahead of the broker's."""

    @property
    def healthy(self) -> bool:
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """For a task's result and for machines."""
        found: dict[str, Any] = {"healthy": self.healthy, "problems": list(self.problems)}
        found["database"] = "down" if self.records is None else "ok"
        found["redis"] = "down" if self.queues is None else "ok"
        if self.records is not None:
            found |= asdict(self.records) | {"paused": list(self.records.paused)}
        if self.queues is not None:
            found["clock_offset_seconds"] = self.clock_offset_seconds
            found["queues"] = {name: asdict(queue) for name, queue in self.queues.items()}
        return found


def check(broker: Broker | None, *, now: datetime, limits: Limits) -> Health:
    """Ask the broker and the database; raises nothing where they do not answer.

    ``now`` is what this machine's clock says as this is called.
    """
    problems: list[str] = []
    records = queues = offset = None
    no_broker = ""
    try:
        if broker is None:
            raise BrokerUnavailableError("no broker is attached")
        # First of all, while ``now`` is still the present instant.
        offset = (now - broker.now()).total_seconds()
        queues = ask(broker)
    except BrokerUnavailableError as error:
        no_broker = trouble(error)
    try:
        with db.reading_tables() as connection:
            records = read(connection, now=now, standing=standings(connection, now=now))
    except SQLAlchemyError as error:
        problems.append(_of_database(error))
    else:
        problems += _of_records(records, limits)
    if queues is None or offset is None:
        problems.append(no_broker)
    else:
        problems += _of_clock(offset, limits)
        paused = () if records is None else records.paused
        problems += _of_queues(queues, paused, limits)
    return Health(tuple(problems), records, queues, offset)


def _asked(
    what: ColumnElement[Any], name: str, *conditions: ColumnElement[bool]
) -> ColumnElement[Any]:
    """A question of its own within a statement, so that each has its own index."""
    asked: ScalarSelect[Any] = (
        select(what).select_from(OUTBOX_ENTRIES).where(*conditions).scalar_subquery()
    )
    return asked.label(name)


_entries = OUTBOX_ENTRIES.c
_unpublished = OutboxEntry.unpublished()
_due = (_unpublished, _entries.due_at <= bindparam("now"))
_FOUND = select(
    _asked(func.count(), "published", OutboxEntry.pending(), _entries.published_at.is_not(None)),
    _asked(func.count(), "unpublished", *_due),
    first_due().label("first_due"),
    _asked(func.count(), "later", _unpublished, _entries.due_at > bindparam("now")),
    _asked(func.count(), "dead", OutboxEntry.dead()),
    _asked(
        func.count(), "recent", OutboxEntry.dead(), _entries.finished_at > bindparam("recently")
    ),
    _asked(func.max(_entries.finished_at), "newest", OutboxEntry.dead()),
)
_PAUSED = select(PausedQueue.name).order_by(PausedQueue.name)


def read(
    session: Session | Connection, *, now: datetime, standing: Mapping[str, Standing]
) -> Records:
    """Return what the database holds at ``now`` (UTC). Each query has an index of few rows.

    ``standing`` is what ``app.outbox.schedule.standings`` returned for ``now``.
    """
    found = session.execute(_FOUND, {"now": now, "recently": now - RECENTLY}).one()
    oldest = found.first_due if found.unpublished else None
    return Records(
        outbox=Outbox(
            published=found.published,
            unpublished=found.unpublished,
            later=found.later,
            oldest_unpublished_seconds=_seconds(oldest, now),
        ),
        dead_letters=DeadLetters(
            number=found.dead,
            recent=found.recent,
            newest_seconds=_seconds(found.newest, now),
        ),
        retrying=retrying(session, now=now),
        beat=_beat(standing, now),
        paused=tuple(session.scalars(_PAUSED)),
    )


def retrying(session: Session | Connection, *, now: datetime) -> dict[str, Retrying]:
    """Pending entries whose last attempt failed, by task. Reads few rows, by their index."""
    return read_retrying(session, now=now, lone_errors=LONE_ERRORS)


def failing_seconds(entries: Retrying) -> float | None:
    """Return for how many seconds a task's entries have been failing; ``None``: not known.

    Health and the WorkRetrying alert compare this age with their limits. Entries that fail with
    one of ``LONE_ERRORS`` count only where more than ``MOST_REFUSED`` of them wait.
    """
    return entries.oldest_seconds if entries.lone > MOST_REFUSED else entries.outage_seconds


def _beat(found: Mapping[str, Standing], now: datetime) -> Beat:
    return Beat(
        _seconds(max((entry.fired_at for entry in found.values()), default=None), now),
        overdue={
            name: (now - entry.next_due).total_seconds()
            for name, entry in sorted(found.items())
            if entry.kept and entry.next_due is not None and entry.next_due < now
        },
        conflicts={name: entry.kept for name, entry in sorted(found.items()) if entry.disagreed},
    )


def ask(broker: Broker) -> dict[str, Queue]:
    """What waits in each queue. Raises ``BrokerUnavailableError``."""
    now = broker.now()  # the clock of the messages' stamps
    return {
        name: Queue(depth.waiting, _seconds(depth.oldest, now))
        for name, depth in broker.depths(routing.QUEUE_NAMES).items()
    }


def _of_database(error: SQLAlchemyError) -> str:
    try:
        revision = schema.current_of(db.engine())
        if revision != schema.newest() and not schema.is_newer(revision):
            return f"the database has not this code's tables: {schema.UPGRADE_COMMAND}"
    except schema.DatabaseNotReadyError:
        pass  # the first error says it in fewer words
    return f"the database does not answer: {db.reason(error)}"


def _of_records(found: Records, limits: Limits) -> list[str]:
    problems = []
    waited = found.outbox.oldest_unpublished_seconds
    if waited is not None and waited > limits.unpublished.total_seconds():
        problems.append(
            f"{found.outbox.unpublished:,} due entries are not published, the oldest for "
            f"{waited:.0f} s: does beat run, does Redis answer?"
        )
    fired = found.beat.last_fired_seconds
    if fired is None:
        problems.append("beat has never run: start one")
    elif fired > limits.beat.total_seconds():
        problems.append(
            f"beat has fired nothing for {fired:.0f} s: does one run, is its clock right?"
        )
    late = {
        name: seconds
        for name, seconds in found.beat.overdue.items()
        if seconds > limits.beat.total_seconds()
    }
    if late and (fired is None or fired <= limits.beat.total_seconds()):
        name = max(late, key=late.__getitem__)
        problems.append(
            f"beat entry {name}{_and_others(len(late))} has been overdue for {late[name]:.0f} s: "
            "the reason is in beat's log"
        )
    problems += _of_conflicts(found.beat.conflicts)
    if found.dead_letters.recent > limits.dead_letters:
        problems.append(
            f"{found.dead_letters.recent:,} dead letters within an hour: "
            "python -m app.admin deadletters list"
        )
    return problems + _of_retrying(found, limits.retrying.total_seconds())


def _of_retrying(found: Records, limit: float) -> list[str]:
    problems = []
    for task, entries in found.retrying.items():
        waited = failing_seconds(entries)
        at_once = entries.error.partition(":")[0] == AT_ONCE
        if (
            waited is None
            or (waited <= limit and not at_once)
            or routing.queue_for(task).name in found.paused
        ):
            continue
        if entries.number == 1:
            what = f"1 entry of {task} has been retrying for {waited:.0f} s, last error"
        else:
            what = (
                f"{entries.number:,} entries of {task} have been retrying, the oldest for "
                f"{waited:.0f} s, most often after"
            )
        of_task = "" if task == OTHER_TASKS else f" --task {task}"
        problems.append(
            f"{what} {entries.error or 'unknown errors'}: "
            f"python -m app.admin outbox list --state retrying{of_task}"
        )
    return problems


def _of_conflicts(conflicts: Mapping[str, tuple[Kept, ...]]) -> list[str]:
    if not conflicts:
        return []
    name, definitions = next(iter(conflicts.items()))
    said = [
        f"{each.description} (host {each.host}) is {'in force' if each.in_force else 'not'}"
        for each in definitions
    ]
    if not definitions[0].in_force:
        said.insert(0, "the definition of a beat of an older version is in force")
    return [
        f"beats disagree about {name}{_and_others(len(conflicts))}: {', '.join(said)}. "
        "Stop the beat that is wrong. python -m app.admin schedule --last lists all"
    ]


def _and_others(number: int) -> str:
    return f" and {number - 1} others" if number > 1 else ""


def _of_clock(offset: float, limits: Limits) -> list[str]:
    if abs(offset) <= limits.clock.total_seconds():
        return []
    return [f"this machine's clock is {offset:+.0f} s off Redis's: set whichever is wrong (NTP)"]


def _of_queues(queues: Mapping[str, Queue], paused: tuple[str, ...], limits: Limits) -> list[str]:
    problems = []
    for spec in routing.QUEUES:
        allowed = limits.queue_age.total_seconds() * (BULK_PATIENCE if spec.bulk else 1)
        waited = queues[spec.name].oldest_seconds
        if spec.name not in paused and waited is not None and waited > allowed:
            problems.append(
                f"the oldest of {queues[spec.name].waiting:,} messages in {spec.name} waits for "
                f"{waited:.0f} s: are there enough workers?"
            )
    return problems


def _seconds(since: datetime | None, now: datetime) -> float | None:
    return None if since is None else max(0.0, (now - since).total_seconds())
