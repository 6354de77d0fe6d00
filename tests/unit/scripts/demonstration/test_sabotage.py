"""What ``--kill`` kills, and when, on processes that only say that they were killed."""

from dataclasses import dataclass, field
from random import Random
from typing import Any, cast

import pytest

from scripts.demonstration.crew import Crew
from scripts.demonstration.sabotage import BEAT_LIVES, LONGEST_WAIT, WORKER_LIVES, Saboteur
from scripts.demonstration.show import closing_time


@dataclass
class FakeMember:
    name: str
    ready_at: float | None = 0.0

    def kill(self) -> None:
        pass


@dataclass
class FakeCrew:
    """Whoever was killed is ready again at the next step."""

    worker: FakeMember = field(default_factory=lambda: FakeMember("worker"))
    beat: FakeMember = field(default_factory=lambda: FakeMember("beat"))

    def watch(self, elapsed: float) -> None:
        for member in (self.worker, self.beat):
            if member.ready_at is None:
                member.ready_at = elapsed


@dataclass
class FakeRedis:
    done: list[str] = field(default_factory=list)

    def kill(self) -> None:
        self.done.append("killed")

    def start(self, *, empty: bool = False) -> None:
        self.done.append("started empty" if empty else "started")


class Bench:
    def __init__(self, *, length: float | None, sending: bool = True) -> None:
        self.crew, self.redis = FakeCrew(), FakeRedis()
        self.killed_at: dict[str, list[float]] = {"worker": [], "beat": [], "Redis": []}
        self.now = 0.0
        self.saboteur = Saboteur(
            cast(Crew, self.crew),
            self.redis,
            rng=Random(1),
            say=self._hear,
            length=length,
            is_sending=lambda: sending,
        )

    def _hear(self, what: str, text: str) -> None:
        if what == "KILLED":
            self.killed_at[text.split(",")[0]].append(self.now)

    def run(self, seconds: float, *, watch: bool = True) -> "Bench":
        while self.now < seconds:
            self.saboteur.step(self.now)
            if watch:
                self.crew.watch(self.now)
            self.now += 0.1
        return self


@pytest.mark.parametrize("length", [10.0, 45.0, None])
def test_even_a_short_show_sees_each_of_them_killed(length: float | None) -> None:
    bench = Bench(length=length).run(length or 60.0)
    assert all(bench.killed_at.values())
    assert {what: len(times) for what, times in bench.killed_at.items()} == dict(
        bench.saboteur.killed
    )


def test_a_worker_is_killed_every_few_seconds_and_beat_now_and_then() -> None:
    bench = Bench(length=None).run(60.0)
    assert len(bench.killed_at["worker"]) >= 60 / (WORKER_LIVES[1] + 1)
    first, second = bench.killed_at["beat"]
    assert second - first == pytest.approx(BEAT_LIVES, abs=0.2)


def test_redis_comes_back_once_and_empty() -> None:
    assert Bench(length=None).run(120.0).redis.done == ["killed", "started empty"]


def test_redis_comes_back_also_when_the_show_ends_meanwhile() -> None:
    bench = Bench(length=10.0).run(5.5)
    bench.saboteur.repair()
    bench.saboteur.repair()
    assert bench.redis.done == ["killed", "started empty"]


def test_a_worker_that_starts_is_left_alone() -> None:
    assert len(Bench(length=None).run(60.0, watch=False).killed_at["worker"]) == 1


def test_an_idle_worker_is_killed_in_the_end() -> None:
    idle = Bench(length=None, sending=False).run(60.0)
    assert LONGEST_WAIT <= idle.killed_at["worker"][0] <= LONGEST_WAIT + WORKER_LIVES[1] + 0.2


@pytest.mark.parametrize(("seconds", "kill"), [(60.0, False), (60.0, True), (20.0, True)])
def test_people_stop_early_enough_to_drain(seconds: float, kill: bool) -> None:
    closing: Any = closing_time(seconds, kill=kill)
    assert seconds / 2 < closing <= seconds * 0.9


def test_without_an_end_people_never_stop() -> None:
    assert closing_time(None, kill=False) is None
