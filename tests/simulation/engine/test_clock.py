"""The clock of a replay."""

from __future__ import annotations

import importlib
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from simulations.engine.clock import VirtualClock, wall_seconds

EASTERN = ZoneInfo("US/Eastern")
SECOND_HALF_PAST_ONE = datetime(2026, 11, 1, 6, 30, tzinfo=UTC)
"""01:30 on the wall clock for the second time that day."""


def no_sleep(_seconds: float) -> None:
    raise AssertionError


def test_a_module_imported_meanwhile_has_the_real_sleep_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "imported_meanwhile.py").write_text("from time import sleep\n")
    monkeypatch.syspath_prepend(tmp_path)
    with VirtualClock(SECOND_HALF_PAST_ONE).in_force(no_sleep):
        module = importlib.import_module("imported_meanwhile")
        with pytest.raises(AssertionError):
            module.sleep(1)
    assert module.sleep is time.sleep


def test_fold_is_kept_in_the_repeated_hour() -> None:
    clock = VirtualClock(SECOND_HALF_PAST_ONE)
    with clock.in_force(no_sleep):
        told = datetime.now(EASTERN)
        converted = datetime.now(UTC).astimezone(EASTERN)
    for instant in (told, converted):
        assert (instant.hour, instant.minute, instant.fold) == (1, 30, 1)
        assert instant.astimezone(UTC) == SECOND_HALF_PAST_ONE


def test_arithmetic_keeps_the_zone_and_loses_the_fold_as_python_does() -> None:
    clock = VirtualClock(SECOND_HALF_PAST_ONE)
    with clock.in_force(no_sleep):
        later = datetime.now(EASTERN) + timedelta(minutes=1)
    real = SECOND_HALF_PAST_ONE.astimezone(EASTERN) + timedelta(minutes=1)
    assert (later.hour, later.minute, later.fold) == (real.hour, real.minute, real.fold)


def test_every_clock_of_the_process_stands_still_and_jumps() -> None:
    clock = VirtualClock(SECOND_HALF_PAST_ONE)
    with clock.in_force(no_sleep):
        before = (time.time(), time.monotonic(), time.perf_counter())
        clock.move_to(clock.now + timedelta(seconds=90))
        after = (time.time(), time.monotonic(), time.perf_counter())
    assert [late - early for early, late in zip(before, after, strict=True)] == [90.0] * 3


def test_an_instant_of_any_zone_is_told_in_utc() -> None:
    clock = VirtualClock(SECOND_HALF_PAST_ONE)
    with clock.in_force(no_sleep):
        clock.move_to((SECOND_HALF_PAST_ONE + timedelta(hours=1)).astimezone(EASTERN))
        assert datetime.now(UTC) == SECOND_HALF_PAST_ONE + timedelta(hours=1)


def test_a_process_can_be_told_a_wrong_time() -> None:
    clock = VirtualClock(SECOND_HALF_PAST_ONE)
    with clock.in_force(no_sleep):
        clock.mislead(timedelta(minutes=5))
        told = datetime.now(UTC)
        clock.mislead(timedelta(0))
        assert datetime.now(UTC) == clock.now
    assert told == SECOND_HALF_PAST_ONE + timedelta(minutes=5)


def test_it_never_goes_back_and_takes_no_naive_start() -> None:
    clock = VirtualClock(SECOND_HALF_PAST_ONE)
    with pytest.raises(ValueError, match="cannot go back"):
        clock.move_to(SECOND_HALF_PAST_ONE - timedelta(seconds=1))
    with pytest.raises(TypeError, match="naive"):
        VirtualClock(datetime(2026, 11, 1))  # noqa: DTZ001 - the point


def test_the_wall_clock_goes_on() -> None:
    with VirtualClock(SECOND_HALF_PAST_ONE).in_force(no_sleep):
        first = wall_seconds()
        assert wall_seconds() > first
    assert first < 10**9
