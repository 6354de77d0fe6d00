"""The event loop of virtual time, and its processes."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from simulations.engine.clock import VirtualClock
from simulations.engine.loop import EventLoop
from simulations.engine.process import Killed, Process, SimulationError
from tests.simulation.engine.toys import MINUTE, SECOND, START


def a_loop() -> EventLoop:
    return EventLoop(VirtualClock(START))


def test_events_happen_in_the_order_of_their_instants_then_of_their_planning() -> None:
    loop, happened = a_loop(), list[str]()
    for name, seconds in (("late", 9), ("first", 5), ("second", 5)):
        loop.call_later(seconds, lambda name=name: happened.append(name))  # type: ignore[misc]
    loop.call_later(7, lambda: happened.append("cancelled")).cancelled = True
    loop.run_until(START + MINUTE)
    assert happened == ["first", "second", "late"]
    assert loop.now == START + MINUTE


def test_a_nap_shorter_than_the_clocks_grain_still_passes_time() -> None:
    """Beat waits for such remainders again and again; without this it would for ever."""
    loop, passed = a_loop(), list[timedelta]()
    process = Process(loop, "beat")

    def nap() -> None:
        loop.sleep(2e-7)
        passed.append(loop.now - START)

    process.start(nap)
    loop.run_until(START + SECOND)
    assert passed == [timedelta(microseconds=1)]


def test_nobody_sleeps_outside_of_a_process() -> None:
    with pytest.raises(SimulationError, match="in a simulated process"):
        a_loop().sleep(1)


def test_a_killed_process_does_nothing_more_even_while_it_unwinds() -> None:
    loop, done = a_loop(), list[str]()
    process = Process(loop, "worker")

    def work() -> None:
        try:
            loop.sleep(10)
            done.append("worked")
        finally:
            process.checkpoint()  # as every statement and every command does
            done.append("cleaned up")

    process.start(work)
    loop.run_until(START + SECOND)
    process.kill()
    loop.run_until(START + MINUTE)
    assert done == []


def test_a_kill_strikes_at_the_chosen_checkpoint() -> None:
    loop, done = a_loop(), list[int]()
    process = Process(loop, "worker")
    process.kill_after(3)

    def work() -> None:
        for number in range(9):
            process.checkpoint()
            done.append(number)

    process.start(work)
    loop.run_until(START + SECOND)
    assert done == [0, 1, 2]
    assert not process.alive


def test_a_child_dies_alone_and_the_process_is_told() -> None:
    loop, done, told = a_loop(), list[str](), list[datetime]()
    process = Process(loop, "worker")

    def work(name: str, checkpoints: int) -> None:
        for _ in range(checkpoints):
            process.checkpoint()
        done.append(name)

    doomed = process.spawn(lambda: work("doomed", 5))
    process.spawn(lambda: work("other", 9))
    process.end_greenlet_after(doomed, 3, lambda: told.append(loop.now))
    loop.run_until(START + SECOND)
    assert (done, told, process.alive) == (["other"], [START], True)


def test_what_a_process_starts_at_its_death_never_begins() -> None:
    loop, done = a_loop(), list[str]()
    process = Process(loop, "worker")
    process.spawn(lambda: done.append("began"))
    process.kill()
    loop.run_until(START + SECOND)
    assert done == []


def test_an_error_in_a_process_ends_the_replay() -> None:
    loop = a_loop()

    def fail() -> None:
        raise LookupError("a mistake")

    Process(loop, "worker").start(fail)
    with pytest.raises(LookupError, match="a mistake"):
        loop.run_until(START + SECOND)


def test_killed_passes_every_handler_of_errors() -> None:
    assert not issubclass(Killed, Exception)


@pytest.mark.parametrize("skip", [True, False])
def test_a_ticker_ticks_where_it_is_needed(skip: bool) -> None:
    loop = EventLoop(VirtualClock(START), skip_quiet_ticks=skip)
    ticks, work = list[datetime](), [START + 20 * SECOND]

    def tick() -> None:
        if work and work[0] <= loop.now:
            ticks.append(loop.now)
            work.pop()

    loop.every(Process(loop, "beat"), "tick", 3, tick, lambda: work[0] if work else None)
    loop.call_later(40, lambda: work.append(START + 30 * SECOND))
    loop.run_until(START + 10 * MINUTE)
    assert ticks == [START + 21 * SECOND, START + 42 * SECOND]


def test_quiet_ticks_are_not_run() -> None:
    loop, ticks = a_loop(), list[datetime]()
    loop.every(Process(loop, "beat"), "tick", 1, lambda: ticks.append(loop.now), lambda: None)
    loop.run_until(START + 60 * MINUTE)
    assert ticks == []


def test_the_ticks_of_the_dead_end() -> None:
    loop, ticks = a_loop(), list[datetime]()
    process = Process(loop, "worker")
    loop.every(process, "tick", 1, lambda: ticks.append(loop.now), lambda: loop.now)
    loop.run_until(START + 3 * SECOND)
    process.kill()
    loop.run_until(START + MINUTE)
    assert len(ticks) == 3
