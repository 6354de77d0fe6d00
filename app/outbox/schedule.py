"""What beat remembers, and how many beats agree: compare and set in the database."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, select, update
from sqlalchemy.orm import Session

from app.db import insert_for
from app.models import BEAT_ENTRIES, BeatEntry
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
    """Differs where the schedule differs."""
    next_due: Callable[[datetime], datetime]
    """The first due instant after the one given; both aware. Asked earlier it never answers
    later."""
    description: str = ""
    """The schedule and its time zone, for a person."""
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
    """What was read of an entry."""

    schedule_hash: str
    last_due: datetime


_beat = BEAT_ENTRIES.c
_ALL = select(_beat.name, _beat.schedule_hash, _beat.last_due)
_REPLACE = (
    update(BEAT_ENTRIES)
    .where(
        _beat.name == bindparam("entry_name"),
        _beat.schedule_hash == bindparam("seen_hash"),
        _beat.last_due == bindparam("seen_due"),
    )
    .values(schedule_hash=bindparam("new_hash"), last_due=bindparam("new_due"))
    .returning(_beat.name)
)


def remembered(session: Session | Connection) -> Mapping[str, Seen]:
    """What is remembered of each entry, by name."""
    return {name: Seen(*seen) for name, *seen in session.execute(_ALL)}


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

    ``seen`` is what was read of it. An entry seen for the first time, or with a changed
    schedule, starts now. Asks no database, and is quick however long nobody asked.
    """
    if seen is None or seen.schedule_hash != entry.schedule_hash:
        return Step(now)
    if seen.last_due > now + CLOCK_STEP:
        logger.warning(
            "%s was last due at %s, in the future: taken as now", entry.name, seen.last_due
        )
        return Step(now)
    missed = _missed(entry, seen.last_due, now)
    if not missed:
        return None
    latest = missed[-1]
    if entry.catch_up is CatchUp.EACH:
        return Step(latest, tuple(missed))
    if entry.catch_up is CatchUp.SKIP and latest < now - LATE:
        logger.warning("%s was missed up to %s and is not made up for", entry.name, latest)
        return Step(latest)
    return Step(latest, (latest,))


def advance(session: Session, entry: PeriodicEntry, seen: Seen | None, step: Step) -> int:
    """Remember the step and enqueue its runs; returns how many this call enqueued.

    Any number of beats may call this: who does not find what was read changes nothing and
    enqueues nothing.
    """
    if seen is None:
        session.execute(
            insert_for(session)(BeatEntry)
            .values(name=entry.name, schedule_hash=entry.schedule_hash, last_due=step.last_due)
            .on_conflict_do_nothing(index_elements=[BeatEntry.name])
        )
        return 0
    if not _replace(session, entry, seen, last_due=step.last_due):
        return 0
    for due in step.runs:
        enqueue_run(
            session,
            entry.task,
            entry.args,
            entry.kwargs,
            due_instant=due,
            queue=entry.queue,
            priority=entry.priority,
        )
    return len(step.runs)


def _missed(entry: PeriodicEntry, since: datetime, now: datetime) -> list[datetime]:
    """The latest due instants after ``since`` up to ``now``, as many as its policy can use."""
    first = entry.next_due(since)
    if first > now:
        return []
    latest = [_latest(entry.next_due, first, now)]
    if entry.catch_up is not CatchUp.EACH:
        return latest
    while latest[0] > first and len(latest) < MOST_CAUGHT_UP:
        latest.insert(0, _latest(entry.next_due, first, latest[0] - MICROSECOND))
    if latest[0] > first:
        logger.error(
            "%s: more than %d due instants were missed, those from %s until before %s are dropped",
            entry.name,
            MOST_CAUGHT_UP,
            first,
            latest[0],
        )
    return latest


def _latest(next_due: Callable[[datetime], datetime], due: datetime, until: datetime) -> datetime:
    """The last due instant up to ``until``, given an earlier one.

    By halving: a year of minutes has half a million.
    """
    nothing_after = until
    while (following := next_due(due)) <= until:
        due = following
        middle = due + (nothing_after - due) / 2
        later = next_due(middle)
        if later <= until:
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
            "new_hash": entry.schedule_hash,
            "new_due": last_due,
        },
    )
    return replaced is not None
