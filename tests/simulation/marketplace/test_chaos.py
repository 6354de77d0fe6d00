"""Chaos: drawn days, the first that breaks, and the fewest faults that break it."""

from __future__ import annotations

from dataclasses import replace
from datetime import time, timedelta

import pytest

from simulations.engine.faults import Fault, parse
from simulations.marketplace import chaos
from simulations.marketplace.chaos import Chaos, DayOfChaos
from simulations.marketplace.faults import FAULTS, STRUCK
from simulations.marketplace.plan import Plan

BASE = Plan(bookings=60)
THREE = (
    Fault("kill-worker", time(1, 0)),
    Fault("redis-down", time(2, 0), timedelta(minutes=5)),
    Fault("smtp-down", time(3, 0), timedelta(seconds=50)),
)


def test_a_seed_draws_the_same_day_again_and_others_draw_others() -> None:
    plans = [chaos.plan_for(BASE, seed) for seed in range(30)]
    assert plans == [chaos.plan_for(BASE, seed) for seed in range(30)]
    assert len({plan.faults for plan in plans}) == 30


def test_two_hundred_seeds_draw_every_fault() -> None:
    drawn = {fault.kind for seed in range(200) for fault in chaos.plan_for(BASE, seed).faults}
    assert drawn == {kind.name for kind in FAULTS}


def test_a_drawn_fault_lasts_as_long_as_its_kind_allows() -> None:
    kinds = {kind.name: kind for kind in FAULTS}
    for seed in range(300):
        for fault in chaos.plan_for(BASE, seed).faults:
            kind = kinds[fault.kind]
            assert fault.duration is None or kind.shortest <= fault.duration <= kind.longest
    assert kinds["clock-step"].longest < kinds["redis-down"].longest


def test_seeds_that_follow_each_other_leave_out_no_fault() -> None:
    drawn = {
        fault.kind
        for seed in range(7, 7 + len(FAULTS))
        for fault in chaos.plan_for(BASE, seed).faults
    }
    assert drawn == {kind.name for kind in FAULTS}


def test_days_enough_for_every_fault_in_which_one_never_struck_prove_nothing() -> None:
    struck = dict.fromkeys((*STRUCK, *(f"fault: {kind.name}" for kind in FAULTS)), 1)
    days = [DayOfChaos(replace(BASE, seed=seed), 1, struck) for seed in range(len(FAULTS))]
    assert Chaos(tuple(days)).never_struck == []
    for what in struck:
        fewer = [replace(day, sometimes=struck | {what: 0}) for day in days]
        assert Chaos(tuple(fewer)).never_struck == [what]
        assert Chaos(tuple(fewer[1:])).never_struck == []


def test_a_plans_command_names_all_that_makes_its_trace() -> None:
    plan = replace(BASE, seed=7, beats=2, storm=(time(9, 0), 50), faults=THREE)
    assert plan.command == (
        "python simulations/day.py --date 2026-07-15 --seed 7 --bookings 60 --beats 2 "
        '--storm 09:00/50 --fault "kill-worker@01:00" --fault "redis-down@02:00/5m" '
        '--fault "smtp-down@03:00/50s"'
    )
    assert tuple(parse(str(fault), FAULTS) for fault in THREE) == THREE


def test_shrinking_leaves_out_each_fault_that_is_not_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def replay(plan: Plan) -> DayOfChaos:
        kinds = {fault.kind for fault in plan.faults}
        broken = "each mail once" if {"kill-worker", "smtp-down"} <= kinds else None
        return DayOfChaos(plan, 1, {}, broken)

    monkeypatch.setattr(chaos, "replay", replay)
    fewest = chaos.shrink(replace(BASE, faults=THREE), "each mail once")
    assert [fault.kind for fault in fewest.faults] == ["kill-worker", "smtp-down"]


def test_the_summary_counts_days_and_names_the_first_broken_one() -> None:
    held = DayOfChaos(replace(BASE, seed=1), 10, {"a task retried": 3})
    broken = DayOfChaos(replace(BASE, seed=2), 5, {"a task retried": 1}, "each mail once", "twice")
    found = Chaos((held, broken))
    assert found.sometimes["a task retried"] == 2
    assert found.sometimes["fault: redis-down"] == 0
    figures = found.as_dict()
    assert (figures["seeds"], figures["events"], figures["broken"]) == (2, 15, 1)
    assert figures["first_broken"] == {
        "invariant": "each mail once",
        "what": "twice",
        "replay": broken.plan.command,
    }


def test_a_replay_that_fails_itself_is_told_as_a_broken_day(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_plan: Plan) -> None:
        raise LookupError("a mistake")

    monkeypatch.setattr(chaos, "Replay", fail)
    day = chaos.replay(BASE)
    assert (day.invariant, day.what) == (chaos.CRASHED, "LookupError: a mistake")
