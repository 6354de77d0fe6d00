"""A peer that fails costs its own figures, and one line; the others are measured."""

from __future__ import annotations

import subprocess
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from scripts import bench_drain, bench_enqueue, bench_storm, bench_urgency
from scripts.arguments import CannotGoOnError
from scripts.bench_urgency import FloodOverError, outlasting
from scripts.benchmarks.command import Attempts, Benchmark
from scripts.benchmarks.runs import TooFewRunsError
from scripts.benchmarks.systems import System

REASON = "huey: publish failed: ConnectionError: no"
ERRORS = [
    RuntimeError(f"{REASON}\nTraceback ..."),
    TooFewRunsError(REASON),
    subprocess.TimeoutExpired(REASON, 5),
    OSError(REASON),
]


class FakeStage:
    """Nothing runs: what would be measured is made up."""

    folder = Path()
    databases = Namespace(make=lambda *_: None)

    def clear(self, **_: object) -> None:
        """Nothing is there."""


@contextmanager
def no_stage(**_: object) -> Iterator[FakeStage]:
    yield FakeStage()


def failing(name: str, found: Any, error: Exception) -> Callable[..., Any]:
    def measured(*arguments: Any, **_: object) -> Any:
        systems = [each for each in arguments if isinstance(each, System)]
        if systems and systems[0].name == name:
            raise error
        return found

    return measured


@pytest.fixture(params=ERRORS, ids=lambda error: type(error).__name__)
def measured(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Any, str], list[Benchmark]]:
    """The benchmarks of a module, where the system of that name fails."""

    def run(module: Any, fails: str) -> list[Benchmark]:
        monkeypatch.setattr(module, "stage", no_stage)
        options = Namespace(n=10, rounds=3, database="sqlite", flood=[10], peers=True)
        if module is bench_drain:
            options = Namespace(n=10, rounds=3, settings=["fastest"], task=["noop"])
            monkeypatch.setattr(module, "drain", failing(fails, (1.0, 1.0), request.param))
        elif module is bench_enqueue:
            options.database = ["sqlite"]

            def enqueue(_on: object, way: bench_enqueue.Way, _count: int) -> float:
                return float(failing(fails, 1.0, request.param)(way.system))

            monkeypatch.setattr(module, "enqueue", enqueue)
        elif module is bench_storm:
            found = {"per_second": 1.0, "connections": 1, "cpu_ms": 1.0, "sink_core": 0.1}
            options.system = ["ours", "huey", "stock celery"]
            monkeypatch.setattr(module, "storm", failing(fails, found, request.param))
            monkeypatch.setattr(module, "sink_alone", lambda *_: 1.0)
            monkeypatch.setattr(module, "running_sink", lambda _: nullcontext())
        else:
            monkeypatch.setattr(module, "ours", lambda *_, **__: [1.0])
            monkeypatch.setattr(module, "peer", failing(fails, [1.0], request.param))
        found = module.measure(options)
        return found if isinstance(found, list) else [found]

    return run


@pytest.mark.parametrize("module", [bench_drain, bench_enqueue, bench_storm, bench_urgency])
@pytest.mark.parametrize("fails", ["huey", "stock celery"])
def test_the_others_are_measured_and_the_table_names_the_peer(
    measured: Callable[[Any, str], list[Benchmark]],
    module: Any,
    fails: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if module is bench_drain and fails == "stock celery":
        fails = "stock celery, prefork"
    for found in measured(module, fails):
        names = [each.name for each in found.series]
        assert names
        assert not [name for name in names if name.startswith(fails)]
        assert all(len(each.values) == 3 for each in found.series)
        assert any(note.startswith(f"Not measured: {fails}") for note in found.notes)
        assert found.as_json()["series"]
    lines = [line for line in capsys.readouterr().err.splitlines() if "not measured" in line]
    assert lines
    assert all(REASON in line for line in lines)
    assert "Traceback" not in "".join(lines)


def test_ours_that_fails_ends_the_benchmark_in_one_line() -> None:
    def act() -> None:
        raise RuntimeError("ours: publish failed: no\nTraceback ...")

    with pytest.raises(CannotGoOnError) as ended:
        Attempts().measure("ours, idle", act, ours=True)
    assert str(ended.value) == "ours, idle failed: ours: publish failed: no"


def test_a_flood_that_is_over_too_soon_is_doubled_until_it_lasts() -> None:
    sizes = []

    def measure(size: int) -> list[float]:
        sizes.append(size)
        if size < 80:
            raise FloodOverError(f"the flood of {size} was over")
        return [1.0]

    assert outlasting(measure, 20) == ([1.0], 80)
    assert sizes == [20, 40, 80]


def test_a_flood_that_never_lasts_is_given_up() -> None:
    def measure(size: int) -> list[float]:
        raise FloodOverError(f"the flood of {size} was over")

    with pytest.raises(FloodOverError):
        outlasting(measure, 1)
