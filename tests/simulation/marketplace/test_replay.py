"""Short days of the marketplace on virtual time: they hold, and they are the same again."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from pathlib import Path

import pytest
from celery import current_app

from app import clock, db, entropy, outbox
from simulations.engine.faults import Fault
from simulations.marketplace import faults
from simulations.marketplace.plan import Plan
from simulations.marketplace.replay import Replay

pytestmark = pytest.mark.timeout(300)  # a day has two thousand runs of tasks that ask a database

ROOT = Path(__file__).parents[3]
SUMMER = Plan(day=date(2026, 7, 15), bookings=20, seed=3)


def trace_of(plan: Plan, *, hours: float) -> str:
    lines = io.StringIO()
    with Replay(plan, trace_into=lines) as replay:
        replay.deployment.run_until(replay.start + timedelta(hours=hours))
    return lines.getvalue()


def test_two_replays_in_one_process_are_the_same_line_for_line() -> None:
    first, again = trace_of(SUMMER, hours=1.5), trace_of(SUMMER, hours=1.5)
    assert first.splitlines() == again.splitlines()
    assert '"event":"mail"' in first or '"event":"beat"' in first


def test_passing_over_quiet_ticks_changes_nothing() -> None:
    fast = trace_of(SUMMER, hours=0.4)
    slow = trace_of(Plan(day=SUMMER.day, bookings=20, seed=3, skip_quiet_ticks=False), hours=0.4)
    assert fast.splitlines() == slow.splitlines()


def test_the_first_hours_of_a_day_are_those_of_the_whole_day() -> None:
    short = replace(SUMMER, hours=1)
    assert "--hours 1 " in short.command
    assert trace_of(short, hours=1).splitlines() == trace_of(SUMMER, hours=1).splitlines()


@pytest.mark.parametrize("bookings", [0, 1, 2])
def test_a_day_with_hardly_anybody_is_replayed(bookings: int) -> None:
    assert '"event":"beat"' in trace_of(replace(SUMMER, bookings=bookings), hours=0.1)


def test_nobody_comes_after_the_last_hour() -> None:
    with Replay(replace(SUMMER, hours=1, storm=(time(0, 58), 40))) as replay:
        outcome = replay.run()
    assert outcome.broken is None
    assert outcome.beat["health-check"] == 60
    assert 0 < outcome.people["booked"] < 40


def test_another_process_with_other_hashes_gives_the_same_trace() -> None:
    program = (
        "from tests.simulation.marketplace.test_replay import SUMMER, trace_of;"
        "import hashlib;"
        "print(hashlib.sha256(trace_of(SUMMER, hours=0.3).encode()).hexdigest())"
    )
    hashes = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(hashes) == 1


def test_nothing_of_a_replay_is_left() -> None:
    before = (current_app._get_current_object(), entropy.rng(), outbox.attach(None), db.use(None))
    db.use(before[3])
    outbox.attach(before[2])
    trace_of(SUMMER, hours=0.1)
    engine = db.use(None)
    db.use(engine)
    broker = outbox.attach(before[2])
    assert (current_app._get_current_object(), entropy.rng(), broker, engine) == before
    assert abs(clock.utcnow() - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_seed_decides_what_happens() -> None:
    other = Plan(day=SUMMER.day, bookings=20, seed=4)
    assert trace_of(SUMMER, hours=0.2) != trace_of(other, hours=0.2)


def test_the_day_of_23_hours_holds_and_has_each_run_once() -> None:
    """The one of 25 is replayed in ``test_cli``."""
    hours = 23
    with Replay(Plan(day=date(2026, 3, 8), bookings=10)) as replay:
        outcome = replay.run()
    assert outcome.broken is None
    of_the_readme = {
        "session-cleanup": hours,
        "booking-reminders": 2 * hours,
        "daily-analytics": 1,
        "notification-cleanup": 1,
        "no-show-check": 4 * hours,
        "availability-cache": 12 * hours,
        "health-check": 60 * hours,
    }
    assert of_the_readme.items() <= outcome.beat.items()
    assert outcome.mails["expected"] == outcome.mails["delivered"] > 0
    assert outcome.mails["doubled"] == 0


@pytest.mark.parametrize("minutes", [-6, 6])
def test_of_two_beats_one_whose_clock_is_minutes_off_doubles_nothing_and_misses_nothing(
    minutes: int,
) -> None:
    with Replay(Plan(bookings=10, hours=1, beats=2)) as replay:
        replay.deployment.run_until(replay.start + timedelta(seconds=30))
        replay.deployment.mislead("beat2", timedelta(minutes=minutes))
        outcome = replay.run()
    assert outcome.broken is None
    assert outcome.beat["health-check"] == 60
    assert outcome.beat["availability-cache"] == 12


def test_a_beat_whose_clock_is_minutes_off_catches_up_when_it_is_right_again() -> None:
    fault = Fault("wrong-clock", time(0, 10), timedelta(minutes=30))
    with Replay(Plan(bookings=10, hours=1, faults=(fault,))) as replay:
        begin = replay.deployment.mislead
        replay.deployment.mislead = lambda _name, _error: begin("beat1", timedelta(minutes=6))  # type: ignore[method-assign]
        outcome = replay.run()
    assert outcome.broken is None
    assert outcome.beat["no-show-check"] == 3, "one for 00:15 and 00:30"


@pytest.mark.parametrize(
    ("fault", "struck"),
    [
        (Fault("workers-lose-database", time(0, 17), timedelta(minutes=30)), faults.DATABASE_LOST),
        (Fault("clock-step", time(0, 17), timedelta(minutes=2)), faults.CLOCK_STEPPED),
        (Fault("mutex-orphaned", time(0, 17)), faults.MUTEX_ORPHANED),
        (Fault("unpublishable-entry", time(0, 17)), faults.ENTRY_SET_ASIDE),
    ],
    ids=lambda each: getattr(each, "kind", ""),
)
def test_a_fault_of_liveness_strikes_and_nothing_is_lost(fault: Fault, struck: str) -> None:
    with Replay(Plan(bookings=200, hours=1, faults=(fault,), storm=(time(0, 15), 60))) as replay:
        outcome = replay.run()
    assert outcome.broken is None
    assert outcome.sometimes[f"fault: {fault.kind}"] == 1
    assert outcome.sometimes[struck] > 0


@pytest.mark.parametrize("depth", [faults.DEPTHS[0] + more for more in (10, 20, 30, 40, 60, 2000)])
def test_an_entry_of_any_depth_stops_no_other(depth: int) -> None:
    """At some depths Python decodes it in one place and fails in another."""
    with Replay(Plan(bookings=20, hours=1)) as replay:
        plant = partial(faults.plant, replay, "too deep", "[" * depth + "]" * depth)
        replay.deployment.call_at(replay.start + timedelta(minutes=5), plant)
        outcome = replay.run()
    assert outcome.broken is None
    assert outcome.sometimes[faults.ENTRY_SET_ASIDE] == 1


def test_the_end_of_a_killed_child_is_recorded_before_its_message_looks_lost() -> None:
    """Also while nothing else happens: the thread that records it has a turn."""
    struck = tuple(Fault("kill-child", time(0, minute)) for minute in (5, 15, 25))
    with Replay(Plan(bookings=5, hours=1, faults=struck)) as replay:
        outcome = replay.run()
    assert outcome.broken is None
    assert outcome.sometimes["a pool's child lost"] == len(struck)
    assert outcome.sometimes["a message resent by the pump"] == 0


def test_a_day_of_faults_holds_and_was_not_empty() -> None:
    struck = (
        *(Fault("kill-worker", time(0, minute)) for minute in (15, 16, 17, 40)),
        *(Fault("kill-child", time(0, minute)) for minute in (15, 18, 43)),
        Fault("smtp-silent", time(0, 20), timedelta(minutes=20)),
        Fault("redis-down", time(0, 45), timedelta(minutes=3)),
        Fault("duplicate", time(1, 5)),
        Fault("redis-emptied", time(1, 30)),
        Fault("second-beat", time(1, 40), timedelta(minutes=30)),
        Fault("beat-down", time(1, 55), timedelta(minutes=10)),
        Fault("database-locked", time(2, 20), timedelta(seconds=30)),
        Fault("wrong-clock", time(2, 30), timedelta(minutes=10)),
        Fault("smtp-down", time(2, 35), timedelta(minutes=10)),
        Fault("workers-down", time(2, 50), timedelta(minutes=2)),
        Fault("kill-beat", time(2, 55)),
    )
    with Replay(Plan(bookings=200, faults=struck, storm=(time(0, 15), 60))) as replay:
        replay.end = replay.start + timedelta(hours=3)
        outcome = replay.run()
    assert outcome.broken is None
    happened = {what for what, number in outcome.sometimes.items() if number}
    assert {
        "a task retried",
        "a message redelivered",
        "a message in its queue twice",
        "a mail's fate uncertain",
        "a process killed",
        "a pool's child lost",
        "a reminder sent",
    } <= happened
