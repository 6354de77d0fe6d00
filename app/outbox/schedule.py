"""What beat remembers, and how many beats agree: compare and set in the database."""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import (
    Connection,
    and_,
    bindparam,
    delete,
    exists,
    func,
    select,
    tuple_,
    update,
)
from sqlalchemy.orm import Session

from app import clock
from app.db import insert_for
from app.models import BEAT_DEFINITIONS, BEAT_ENTRIES, BeatDefinition, BeatEntry
from app.outbox.enqueue import enqueue_run

logger = logging.getLogger(__name__)

CLOCK_STEP = timedelta(minutes=5)
"""A remembered instant further ahead than this was written by a clock that was wrong."""
MOST_CLOCK_ERROR = CLOCK_STEP / 2
"""Off the broker's clock: two beats that keep to it never find such an instant of each other."""
LATE = timedelta(minutes=2)
"""A due instant further back than this was missed: a beat that runs is never so late."""
MOST_CAUGHT_UP = 31
"""Runs that one entry makes up for at once: a month of days."""
MICROSECOND = timedelta(microseconds=1)
SIGN_EVERY = timedelta(seconds=20)
"""How often a beat notes that it lives, and through which instant it has kept its entries."""
ABSENT_AFTER = timedelta(minutes=2)
"""A definition without a sign of life for so long is kept by no beat. Longer than any pause
between two ticks of a beat that works (``LONGEST_PAUSE_SECONDS``)."""
LONGEST_GAP = timedelta(seconds=90)
"""Between two looks of a watch. Longer than any ``PUMP_INTERVAL_SECONDS``."""


class ClockOffError(Exception):
    """Nobody knows what is due: this machine's clock is too far off the broker's."""


class CatchUp(StrEnum):
    """What becomes of due instants that no beat saw."""

    ONCE = "once"
    """One run for all of them, for the latest: it does what the others would have done."""
    EACH = "each"
    """A run for each, up to ``MOST_CAUGHT_UP``, the latest ones: each has work of its own."""
    SKIP = "skip"
    """None: what they would have done is of no use any more."""


@dataclass(frozen=True)
class PeriodicEntry:
    """One entry of the schedule."""

    name: str
    task: str
    schedule_hash: str
    """Differs where the schedule, its time zone or the task differs."""
    next_due: Callable[[datetime], datetime]
    """The first due instant after the one given; both aware. Asked earlier it never answers
    later."""
    definition: str = ""
    """Differs where anything of the entry differs, its arguments and options included."""
    description: str = ""
    """The schedule, its time zone and options, for a person."""
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    catch_up: CatchUp = CatchUp.ONCE
    queue: str | None = None
    """Instead of its task's own."""
    priority: int | None = None
    """On the wire, instead of its queue's."""


@dataclass(frozen=True)
class Step:
    """What is to be remembered of an entry from now on, and what is to run for it."""

    last_due: datetime
    runs: tuple[datetime, ...] = ()
    """Due instants, in order."""


class Seen(NamedTuple):
    """What was read of an entry, and of its definition that is in force."""

    schedule_hash: str
    last_due: datetime
    definition: str | None = None
    """``None`` where a beat of an older version wrote last, which knows none."""
    next_due: datetime | None = None
    kept_through: datetime | None = None
    """Up to here all that is due by the definition in force was enqueued; ``None`` where no
    beat with it has given a sign of life, as those of an older version."""
    seen_at: datetime | None = None
    """Its last sign of life, by the broker's clock."""
    description: str | None = None


@dataclass(frozen=True)
class Kept:
    """A definition of an entry that a living beat has."""

    description: str
    host: str
    in_force: bool


@dataclass(frozen=True)
class Standing:
    """How an entry stands, for operators."""

    seen: Seen
    last_run_due: datetime | None
    last_run_at: datetime | None
    last_run_id: str | None
    kept: tuple[Kept, ...] = ()
    """The definitions that living beats have: the one in force first."""

    @property
    def disagreed(self) -> bool:
        """Whether beats have another definition than the one in force."""
        return any(not definition.in_force for definition in self.kept)

    @property
    def fired_at(self) -> datetime:
        """When its last run was enqueued, or since when it is there."""
        if self.last_run_at is None or self._fired_by_an_older_version:
            return self.seen.last_due
        return self.last_run_at

    @property
    def next_due(self) -> datetime | None:
        """The first due instant that has no run; ``None`` where only its schedule says it."""
        return None if self._fired_by_an_older_version else self.seen.next_due

    @property
    def _fired_by_an_older_version(self) -> bool:
        # A beat of ours moves both. One of an older version with another schedule changes the
        # hash, and its definition is not known.
        seen = self.seen
        return (
            seen.description is not None
            and seen.next_due is not None
            and seen.last_due > seen.next_due
        )


@dataclass(frozen=True)
class Watch:
    """How long a beat has watched another definition being in force. By the broker's clock."""

    of: tuple[str, str | None]
    since: datetime
    until: datetime


_beat = BEAT_ENTRIES.c
_known = BEAT_DEFINITIONS.c
_ALL = select(
    _beat.name,
    _beat.schedule_hash,
    _beat.last_due,
    _beat.definition,
    _beat.next_due,
    _known.kept_through,
    _known.seen_at,
    _known.description,
).outerjoin_from(
    BEAT_ENTRIES,
    BEAT_DEFINITIONS,
    and_(
        _known.name == _beat.name,
        _known.definition == _beat.definition,
        # A beat of an older version changes this column alone.
        _known.schedule_hash == _beat.schedule_hash,
    ),
)
_KNOWN = select(_known.seen_at).where(
    _known.name == bindparam("entry_name"), _known.definition == bindparam("its_definition")
)
_REPLACE = (
    update(BEAT_ENTRIES)
    .where(
        _beat.name == bindparam("entry_name"),
        _beat.schedule_hash == bindparam("seen_hash"),
        _beat.last_due == bindparam("seen_due"),
        _beat.definition.is_not_distinct_from(bindparam("seen_definition")),
    )
    .values(
        schedule_hash=bindparam("new_hash"),
        definition=bindparam("new_definition"),
        last_due=bindparam("new_due"),
        next_due=bindparam("new_next"),
    )
    .returning(_beat.name)
)
_NOTE_RUN = (
    update(BEAT_ENTRIES)
    .where(_beat.name == bindparam("entry_name"))
    .values(
        last_run_due=bindparam("due"), last_run_at=bindparam("at"), last_run_id=bindparam("run_id")
    )
)


def remembered(session: Session | Connection) -> Mapping[str, Seen]:
    """What is remembered of each entry, by name."""
    return {name: Seen(*seen) for name, *seen in session.execute(_ALL)}


_RUNS = select(_beat.name, _beat.last_run_due, _beat.last_run_at, _beat.last_run_id)
_KEPT = (
    select(
        _known.name,
        _known.description,
        _known.host,
        and_(_beat.definition == _known.definition, _beat.schedule_hash == _known.schedule_hash),
    )
    .join_from(BEAT_DEFINITIONS, BEAT_ENTRIES, _beat.name == _known.name)
    .where(_known.seen_at.between(bindparam("alive_since"), bindparam("at_most")))
    .order_by(_known.name, _known.seen_at.desc(), _known.definition)
)


def standings(session: Session | Connection, *, now: datetime) -> Mapping[str, Standing]:
    """How each entry stands at ``now``, by name. Reads a few rows for each entry."""
    seen = remembered(session)
    kept: dict[str, list[Kept]] = {}
    for name, description, host, rules in session.execute(
        _KEPT, {"alive_since": now - ABSENT_AFTER + MICROSECOND, "at_most": now + CLOCK_STEP}
    ):
        kept.setdefault(name, []).append(Kept(description, host, bool(rules)))
    return {
        name: Standing(
            seen[name],
            due,
            at,
            run_id,
            tuple(sorted(kept.get(name, ()), key=lambda each: not each.in_force)),
        )
        for name, due, at, run_id in session.execute(_RUNS)
        if name in seen
    }


def is_known(session: Session | Connection, entry: PeriodicEntry) -> bool:
    """Whether some beat has had this definition of the entry in force before."""
    names = {"entry_name": entry.name, "its_definition": entry.definition}
    return session.execute(_KNOWN, names).first() is not None


def in_force(entry: PeriodicEntry, seen: Seen) -> bool:
    """Whether the definition in force is that of ``entry``."""
    # A beat of an older version writes no definition: there the schedule alone decides.
    return seen.schedule_hash == entry.schedule_hash and seen.definition in (None, entry.definition)


def watch(seen: Seen, before: Watch | None, at: datetime) -> Watch:
    """The watch over the definition in force, after another look at ``at`` (broker's clock).

    It begins again where another definition is in force than at the look before, and where
    nothing was looked at for ``LONGEST_GAP``: signs of life may be missing because
    the database was away, or because this process was stopped.
    """
    of = seen.schedule_hash, seen.definition
    if before is None or before.of != of:
        return Watch(of, at, at)
    if not timedelta(0) <= at - before.until <= LONGEST_GAP:
        return Watch(of, at, at)
    return replace(before, until=at)


def may_replace(seen: Seen, watched: Watch) -> bool:
    """Whether a definition that was replaced before may be in force again.

    Only where no beat keeps the one in force: neither a sign of life nor anything else was
    seen of it for ``ABSENT_AFTER``.
    """
    last_sign = watched.since
    # One in the future was written while the broker's clock was wrong.
    if seen.seen_at is not None and watched.since < seen.seen_at <= watched.until:
        last_sign = seen.seen_at
    return watched.until - last_sign >= ABSENT_AFTER


def confirm_clock(now: datetime, *, broker_now: datetime) -> None:
    """Raise ``ClockOffError`` where the two differ by more than ``MOST_CLOCK_ERROR``."""
    ahead = now - broker_now
    if abs(ahead) > MOST_CLOCK_ERROR:
        raise ClockOffError(
            f"this machine's clock is {ahead.total_seconds():+.0f} s off Redis's, more than the "
            f"{MOST_CLOCK_ERROR.total_seconds():g} s that the schedule allows: set whichever of "
            "the two is wrong (NTP)"
        )


def next_step(entry: PeriodicEntry, seen: Seen | None, now: datetime) -> Step | None:
    """What is to be done about the entry; ``None`` where it is nothing.

    ``seen`` is what was read of it. An entry seen for the first time starts now. Where another
    definition is in force than the entry's, the entry's replaces it from the instant through
    which the other one was kept, so that no due instant is lost between the two: ask
    ``is_known`` and ``may_replace`` before. Asks no database, and is quick however long nobody
    asked.
    """
    if seen is None:
        return Step(now)
    since = seen.last_due
    replaces = not in_force(entry, seen)
    if replaces:
        since = max(since, seen.kept_through or now - ABSENT_AFTER - SIGN_EVERY)
    if since > now + CLOCK_STEP:
        logger.warning("%s was last due at %s, in the future: taken as now", entry.name, since)
        return Step(now)
    missed = _missed(entry, since, now)
    if not missed:
        # A beat of an older version leaves ``next_due`` as it was.
        known = not replaces and seen.next_due == following(entry, since)
        return None if known else Step(since)
    latest = missed[-1]
    if entry.catch_up is CatchUp.EACH:
        return Step(latest, tuple(missed))
    if entry.catch_up is CatchUp.SKIP and latest < now - LATE:
        logger.warning("%s was missed up to %s and is not made up for", entry.name, latest)
        return Step(latest)
    return Step(latest, (latest,))


def following(entry: PeriodicEntry, after: datetime) -> datetime:
    """The first due instant after ``after``; ``after`` itself where its schedule fails.

    So an entry whose schedule fails from some instant on has been overdue since then.
    """
    try:
        return entry.next_due(after)
    except Exception:
        return after


def advance(session: Session, entry: PeriodicEntry, seen: Seen | None, step: Step) -> int | None:
    """Remember the step and enqueue its runs; returns how many this call enqueued.

    Any number of beats may call this: one that does not find what was read changes nothing,
    enqueues nothing, and gets ``None``.
    """
    if seen is None:
        inserted = session.scalar(
            insert_for(session)(BEAT_ENTRIES)
            .values(
                name=entry.name,
                schedule_hash=entry.schedule_hash,
                definition=entry.definition,
                last_due=step.last_due,
                next_due=following(entry, step.last_due),
            )
            .on_conflict_do_nothing(index_elements=[BeatEntry.name])
            .returning(_beat.name)
        )
        return None if inserted is None else 0
    if not _replace(session, entry, seen, last_due=step.last_due):
        return None
    run_ids = [
        enqueue_run(
            session,
            entry.task,
            entry.args,
            entry.kwargs,
            due_instant=due,
            queue=entry.queue,
            priority=entry.priority,
        )
        for due in step.runs
    ]
    if run_ids:
        last = {"due": step.runs[-1], "at": clock.utcnow(), "run_id": run_ids[-1]}
        session.execute(_NOTE_RUN, {"entry_name": entry.name, **last})
    return len(run_ids)


def sign(
    session: Session,
    entries: Iterable[tuple[PeriodicEntry, datetime | None]],
    *,
    at: datetime,
    host: str,
) -> None:
    """Note that a beat on ``host`` lives at ``at`` (broker's clock) with these entries.

    With each entry comes the instant up to which the beat has enqueued all that was due of it,
    by its own clock; ``None`` where it could not. Call it once in a transaction: every beat
    locks the rows in the order of their names, so that two of them never wait for each other.
    """
    rows = [
        {
            "name": entry.name,
            "definition": entry.definition,
            "schedule_hash": entry.schedule_hash,
            "description": entry.description,
            "kept_through": through,
            "seen_at": at,
            "host": host,
        }
        for entry, through in sorted(entries, key=lambda each: each[0].name)
    ]
    if not rows:
        return
    noted = insert_for(session)(BEAT_DEFINITIONS)
    session.execute(
        noted.on_conflict_do_update(
            index_elements=[_known.name, _known.definition],
            set_={
                "kept_through": func.coalesce(noted.excluded.kept_through, _known.kept_through),
                "seen_at": noted.excluded.seen_at,
                "host": noted.excluded.host,
            },
        ),
        rows,
    )


def delete_definitions(session: Session, *, before: datetime, limit: int) -> int:
    """Delete up to ``limit`` definitions that no beat has had since ``before``; how many.

    The definition in force of an entry stays. One that was deleted is a new one to a beat that
    has it after all, and is in force at once. Waits for no other transaction.
    """
    in_force_now = exists().where(_beat.name == _known.name, _beat.definition == _known.definition)
    batch = (
        select(_known.name, _known.definition)
        .where(_known.seen_at < before, ~in_force_now)
        .order_by(_known.seen_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("batch")
    )
    deleted = session.scalars(
        delete(BeatDefinition)
        .where(
            tuple_(BeatDefinition.name, BeatDefinition.definition).in_(
                select(batch.c.name, batch.c.definition)
            )
        )
        .returning(BeatDefinition.name)
        .execution_options(synchronize_session=False)
    )
    return len(deleted.all())


def _missed(entry: PeriodicEntry, since: datetime, now: datetime) -> list[datetime]:
    """The latest due instants after ``since`` up to ``now``, as many as its policy can use."""
    first = entry.next_due(since)
    if first > now:
        return []
    latest = [_latest(entry, first, now)]
    if entry.catch_up is not CatchUp.EACH:
        return latest
    while latest[0] > first and len(latest) < MOST_CAUGHT_UP:
        latest.insert(0, _latest(entry, first, latest[0] - MICROSECOND))
    if latest[0] > first:
        logger.error(
            "%s: more than %d due instants were missed, those from %s until before %s are dropped",
            entry.name,
            MOST_CAUGHT_UP,
            first,
            latest[0],
        )
    return latest


def _latest(entry: PeriodicEntry, due: datetime, until: datetime) -> datetime:
    """The last due instant up to ``until``, given an earlier one.

    By halving: a year of minutes has half a million. Where the schedule fails, the last one
    before that.
    """
    nothing_after = until
    while due < (after := following(entry, due)) <= until:
        due = after
        middle = due + (nothing_after - due) / 2
        later = following(entry, middle)
        if middle < later <= until:
            due = later
        else:
            nothing_after = middle
    return due


def _replace(session: Session, entry: PeriodicEntry, seen: Seen, *, last_due: datetime) -> bool:
    replaced = session.scalar(
        _REPLACE,
        {
            "entry_name": entry.name,
            "seen_hash": seen.schedule_hash,
            "seen_due": seen.last_due,
            "seen_definition": seen.definition,
            "new_hash": entry.schedule_hash,
            "new_definition": entry.definition,
            "new_due": last_due,
            "new_next": following(entry, last_due),
        },
    )
    return replaced is not None
