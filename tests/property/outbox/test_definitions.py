"""By whose definition an entry is fired, whatever beats and versions come and go.

The rule of ``app.outbox.schedule`` on a table in memory, with drawn starts, stops, hangs and
clock errors of beats. What is right is found from the table's history: who was in force since
when, and the due instants of each version between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis.strategies import (
    DrawFn,
    composite,
    integers,
    just,
    lists,
    one_of,
    sampled_from,
    tuples,
)

from app.outbox.schedule import (
    ABSENT_AFTER,
    SIGN_EVERY,
    CatchUp,
    PeriodicEntry,
    Seen,
    Step,
    Watch,
    in_force,
    may_replace,
    next_step,
    watch,
)

START = datetime(2026, 7, 1, 12, 0, 30, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
TICK = 5 * SECOND
OFF = 140
"""Seconds by which a clock may be wrong: a little less than a beat allows itself."""
EVERY = (1, 2, 3, 2, 1)
"""Minutes between two due instants of each version; two pairs have the same schedule."""


def multiples(minutes: int) -> Callable[[datetime], datetime]:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    length = minutes * MINUTE
    return lambda after: epoch + ((after - epoch) // length + 1) * length


VERSIONS = tuple(
    PeriodicEntry(
        "entry",
        "task",
        schedule_hash=f"every {minutes}",
        definition=f"version {number}",
        next_due=multiples(minutes),
        catch_up=CatchUp.EACH,
    )
    for number, minutes in enumerate(EVERY)
)


@dataclass
class Table:
    """The rows of one entry, and who fired what."""

    row: Seen | None = None
    signs: dict[str, tuple[datetime, datetime]] = field(default_factory=dict)
    """Of each definition: kept through, seen at."""
    reigns: list[tuple[str, datetime]] = field(default_factory=list)
    """Which definition was in force since when."""
    runs: list[tuple[str, datetime]] = field(default_factory=list)

    def read(self) -> Seen | None:
        if self.row is None or self.row.definition is None:
            return self.row
        kept, at = self.signs.get(self.row.definition, (None, None))
        return self.row._replace(kept_through=kept, seen_at=at)

    def advance(self, entry: PeriodicEntry, seen: Seen | None, step: Step, since: datetime) -> bool:
        found = self.row and (self.row.definition, self.row.last_due)
        if found != (seen and (seen.definition, seen.last_due)):
            return False
        if seen is None or not in_force(entry, seen):
            self.reigns.append((entry.definition, since))
        self.row = Seen(
            entry.schedule_hash, step.last_due, entry.definition, entry.next_due(step.last_due)
        )
        self.runs += [(entry.definition, due) for due in step.runs]
        return True


@dataclass
class Beat:
    """One beat: it reads, then writes; the two can be torn apart."""

    table: Table
    entry: PeriodicEntry
    error: timedelta
    """Of its clock; the broker's is right."""
    watched: Watch | None = None
    read: Seen | None = None

    def look(self) -> None:
        self.read = self.table.read()

    def act(self, at: datetime) -> None:
        seen, entry, now = self.read, self.entry, at + self.error
        replaces = seen is not None and not in_force(entry, seen)
        if seen is not None and replaces and entry.definition in self.table.signs:
            self.watched = watch(seen, self.watched, at)
            if not may_replace(seen, self.watched):
                self.table.signs[entry.definition] = (now, at)
                return
        self.watched = None
        step = next_step(entry, seen, now)
        if step is not None:
            since = now
            if seen is not None:
                since = max(seen.last_due, seen.kept_through or seen.last_due)
            if not self.table.advance(entry, seen, step, since):
                return
        if replaces or seen is None or at - self._signed() >= SIGN_EVERY:
            self.table.signs[entry.definition] = (now, at)

    def _signed(self) -> datetime:
        return self.table.signs.get(self.entry.definition, (START, START - MINUTE))[1]


Action = tuple[str, int, int]


@composite
def histories(draw: DrawFn) -> list[Action]:
    """What happens, one after the other: (what, to which beat or version, for how many ticks)."""
    some = integers(0, len(VERSIONS) - 1)
    start = tuples(just("start"), some, sampled_from([0, 0, 1, -1, 2, -2, OFF, -OFF]))
    stop = tuples(just("stop"), some, just(0))
    hang = tuples(just("hang"), some, integers(1, 40))
    wait = tuples(just("wait"), just(0), sampled_from([1, 2, 6, 12, 30, 60]))
    return draw(lists(one_of(start, stop, hang, wait, wait), min_size=4, max_size=25))


def play(history: list[Action]) -> tuple[Table, datetime]:
    """The table at the end, and when that is; some beat of the last start ticks to the end."""
    table, now = Table(), START
    beats: list[Beat] = [Beat(table, VERSIONS[0], timedelta(0))]

    def pass_ticks(number: int) -> None:
        nonlocal now
        for _ in range(number):
            now += TICK
            for beat in beats:
                beat.look()
                beat.act(now)

    for what, which, amount in [*history, ("wait", 0, 120)]:
        match what:
            case "start":
                beats.insert(0, Beat(table, VERSIONS[which], amount * SECOND))
            case "stop" if len(beats) > 1:
                beats.pop(which % len(beats))
            case "hang":
                beat = beats[which % len(beats)]
                beats.remove(beat)
                beat.look()
                pass_ticks(amount)
                beat.act(now)
                beats.append(beat)
            case "wait":
                pass_ticks(amount)
    return table, now


@settings(max_examples=300, deadline=None)
@given(histories())
def test_each_due_instant_of_the_definition_in_force_has_exactly_one_run(
    history: list[Action],
) -> None:
    table, _ = play(history)
    assert table.row is not None
    dues = [due for _, due in table.runs]
    assert dues == sorted(set(dues))
    by_name = {entry.definition: entry for entry in VERSIONS}
    ends = [since for _, since in table.reigns[1:]] + [table.row.last_due]
    wanted = []
    for (name, since), until in zip(table.reigns, ends, strict=True):
        due = by_name[name].next_due(since)
        while due <= until:
            wanted.append((name, due))
            due = by_name[name].next_due(due)
    assert table.runs == wanted


@settings(max_examples=300, deadline=None)
@given(histories())
def test_no_history_silences_an_entry(history: list[Action]) -> None:
    """After ten minutes of ticks some definition is in force that a living beat keeps."""
    table, now = play(history)
    assert table.row is not None
    assert table.row.next_due is not None
    assert table.row.next_due > now - TICK - 2 * OFF * SECOND


@settings(max_examples=300, deadline=None)
@given(histories())
def test_the_definition_in_force_changes_once_for_each_start_and_each_absence(
    history: list[Action],
) -> None:
    """However many beats differ, they do not take the schedule from each other by turns."""
    table, now = play(history)
    starts = sum(what == "start" for what, *_ in history)
    absences = (now - START) // ABSENT_AFTER
    assert len(table.reigns) <= 1 + starts + absences
