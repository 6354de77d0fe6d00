"""Each benchmark runs, and says what it promises to say; how fast, no test asks."""

import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from scripts.bench_urgency import outlasting, peer
from scripts.benchmarks.stage import stage
from scripts.benchmarks.systems import HUEY

ROOT = Path(__file__).parents[3]
# Each starts several systems, one after the other.
pytestmark = pytest.mark.timeout(400)


def bench(name: str, *words: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", f"scripts.{name}", "--json", "--rounds", "1", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=380,
    )
    # 1: the goal was missed, which says little of so few tasks.
    assert done.returncode in {0, 1}, done.stderr
    return json.loads(done.stdout)


def by_name(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in found["series"]}


def test_the_storm_sends_each_mail_once_by_ours_and_by_every_peer() -> None:
    found = bench("bench_storm", "--n", "30")
    series = by_name(found)
    assert found["ratio_to_fastest_peer"] > 0
    assert found["ratio_to_stock_celery"] > 0
    assert found["sink_alone_mails_per_second"] > 0
    assert len(series) == 11
    ours = series["ours, a connection for a chunk"]
    assert (ours["n"], ours["connections"]) == (30, 1)
    assert series["huey, a connection for each mail"]["connections"] == 30
    assert series["dramatiq, kept connection"]["connections"] <= 2


def test_a_storm_on_postgresql_begins_anew_for_each_system() -> None:
    words = ["--database", "postgresql", "--system", "ours", "--system", "dramatiq"]
    found = bench("bench_storm", "--n", "20", *words)
    assert len(found["series"]) == 3


@pytest.mark.parametrize("settings", ["durable", "fastest"])
def test_every_system_drains_its_backlog(settings: str) -> None:
    [found] = bench("bench_drain", "--n", "40", "--task", "noop", "--settings", settings)
    assert found["ratio_to_fastest_peer"] > 0
    assert all(each["median"] > 0 for each in found["series"])
    assert {"processor", "cores", "versions"} <= found["machine"].keys()


def test_a_booking_does_not_wait_for_a_flood() -> None:
    found = bench("bench_urgency", "--n", "10", "--flood", "2000", "--without-peers")
    series = by_name(found)
    assert found["ratio_to_idle"] > 0
    assert series["ours, idle"]["ratio_to_idle"] == 1
    assert "ours, 2,000 in each other queue" in series


def test_a_flood_that_a_peer_drains_too_soon_is_doubled() -> None:
    """Huey, the fastest of those that know priorities."""
    with stage() as on:
        waits, size = outlasting(partial(peer, on, HUEY, 30), 200)
    assert len(waits) == 30
    assert size > 200


def test_each_part_of_the_worker_is_measured_beside_what_lacks_it() -> None:
    found = bench("bench_overhead", "--n", "40")
    series = by_name(found)
    assert series["BaseTask, called"]["beside"] == "celery.Task, called"
    assert found["holds"] is (found["cost_percent"] <= found["goal_percent"])


def test_enqueueing_is_measured_on_both_databases() -> None:
    found = bench("bench_enqueue", "--n", "20")
    names = by_name(found).keys()
    assert "ours, outbox, one commit, postgresql" in names
    assert "ours, outbox, a commit for each, sqlite" in names
    assert found["ratio_to_stock_celery"] > 0


def test_growth_is_measured_beside_the_smallest_size() -> None:
    found = bench("bench_growth", "--n", "10000")
    series = by_name(found)
    assert series["beat's tick, 1,000"]["ratio_to_smallest"] == 1
    assert series["worker's memory, 10,000"]["median"] > 0
    assert series["relay's rate, all due at once, 10,000"]["median"] > 0
    assert series["urgent entry's wait behind them, 10,000"]["median"] > 0
    assert found["ratio_to_smallest"].keys() == {"tick", "look-up", "cleanup", "relay", "urgent"}


def test_one_command_writes_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    words = ["--small", "--only", "enqueue", "--only", "growth", "--page", str(page)]
    done = subprocess.run(
        [sys.executable, "-m", "scripts.bench_all", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=380,
    )
    assert done.returncode == 0, done.stderr
    assert "python -m scripts.bench_enqueue" in page.read_text()
    assert "beat's tick, 1,000" in page.read_text()


def test_a_part_of_the_benchmarks_does_not_become_the_page_in_docs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.bench_all", "--small"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "--page" in done.stderr


@pytest.mark.parametrize("option", ["--page", "--json"])
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_measured(
    option: str, tmp_path: Path
) -> None:
    file = tmp_path / "no such folder" / "found"
    page = ["--page", str(tmp_path / "page.md")]
    done = subprocess.run(
        [sys.executable, "-m", "scripts.bench_all", "--small", *page, option, str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert f"argument {option}: there is no folder {file.parent}" in done.stderr
    assert "==" not in done.stderr


@pytest.mark.parametrize("module", ["bench_urgency", "bench_all"])
def test_a_benchmark_that_is_told_to_end_leaves_nothing_running(
    module: str, tmp_path: Path
) -> None:
    words = {
        "bench_urgency": ["--n", "100", "--without-peers"],
        "bench_all": ["--small", "--only", "urgency", "--page", str(tmp_path / "page.md")],
    }[module]
    said = tmp_path / "stderr"
    with said.open("w") as stderr:
        benchmark = psutil.Popen(
            [sys.executable, "-m", f"scripts.{module}", *words],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
        until = time.monotonic() + 60
        while len(started := benchmark.children(recursive=True)) < 3 and time.monotonic() < until:
            time.sleep(0.1)
        assert len(started) >= 3
        benchmark.terminate()
        status = benchmark.wait(timeout=30)
    _, alive = psutil.wait_procs(started, timeout=10)
    for process in alive:
        process.kill()
    assert (status, alive) == (130, [])
    assert "Traceback" not in said.read_text()
    assert "interrupted" in said.read_text()
