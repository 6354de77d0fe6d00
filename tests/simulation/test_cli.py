"""``python simulations/day.py``, as it is typed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import psutil
import pytest

from simulations.cli import main

ROOT = Path(__file__).parents[2]


def day(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "simulations" / "day.py"), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--date", "tomorrow"], "'tomorrow' is not a date: write 2026-11-01"),
        (["--date", "9999-12-31"], "9999-12-31 is not between 1970-01-01 and 2099-12-31"),
        (["--days", "0"], "'0' is not a whole number from 1 to 400"),
        (["--workers", "many"], "'many' is not a whole number from 1 to 64"),
        (["--storm", "9"], "'9' is not a storm: write 09:00/5000"),
        *(
            (["--storm", wrong], f"'{wrong}' is not a storm: write 09:00/5000, at most 100,000")
            for wrong in ("09:00/1000000000000", "09:00/100001", "09:00+05:00/5", "24:00/3")
        ),
        (["--fault", "redis-down"], "write NAME@HH:MM or NAME@HH:MM/DURATION"),
        (["--fault", "redis-away@10:00"], "there is no fault 'redis-away', only kill-worker"),
        (["--fault", "redis-down@10:00"], "needs a duration: write redis-down@HH:MM/30m"),
        (["--fault", "kill-worker@10:00/5m"], "takes no duration: write kill-worker@HH:MM"),
        (["--fault", "kill-worker@25:00"], "names no time of day"),
        (["--fault", "redis-down@10:00/0s"], "lasts no time"),
        (["--fault", "redis-down@10:00/soon"], "'soon' is not a duration: write 30s, 5m, 2h"),
        (["--fault", "redis-down@10:00/"], "'' is not a duration: write 30s, 5m, 2h"),
        (["--service-times", "times.toml"], "--service-times is for --app"),
        (["--bookin", "5"], "unrecognized arguments: --bookin 5"),
        (["--ap", "proj.celery:app"], "unrecognized arguments: --ap"),
        (["--chaos", "--fault", "kill-worker@10:00"], "--chaos draws its own faults"),
        (["--chaos", "--trace", "t.jsonl"], "--trace, --report and --broker are for one"),
        (["--chaos", "--report", "r.html"], "--trace, --report and --broker are for one"),
        (["--hours", "0"], "'0' is not a whole number from 1 to 25"),
        (["--hours", "2", "--fault", "kill-worker@02:00"], "kill-worker@02:00 begins when the"),
        (["--hours", "2", "--storm", "02:00/9"], "the storm at 02:00 begins when the"),
        (["--chaos", "--hours", "2"], "--chaos draws its faults from whole days"),
        (["--shrink"], "--shrink needs faults to leave out"),
        (["--seeds", "3"], "--seeds is how many days of --chaos: add that"),
        (["--json", "no/such/folder/day.json"], "name a file in a folder that exists"),
        (["--report", "no/such/folder/day.html"], "name a file in a folder that exists"),
        (["--report", "."], "--report .: name a file in a folder that exists"),
        (["--seedling"], "unrecognized arguments: --seedling"),
    ],
)
def test_a_wrong_argument_ends_with_one_line_that_says_what_is_right(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    printed = capsys.readouterr()
    [line] = printed.err.splitlines()
    assert said in line
    assert printed.out == ""
    assert list(tmp_path.iterdir()) == []


def test_the_help_lists_the_options_of_any_app() -> None:
    shown = day("--help").stdout
    assert "--app MODULE:APP" in shown
    assert "--service-times FILE" in shown


def test_a_broker_that_is_not_there_is_a_bad_argument_and_nothing_is_written(
    tmp_path: Path,
) -> None:
    files = ["--trace", "t.jsonl", "--json", "t.json", "--report", "t.html"]
    ended = day("--broker", "redis://127.0.0.1:1/0", *files, cwd=tmp_path)
    assert ended.returncode == 2
    [line] = ended.stderr.splitlines()
    assert "--broker redis://127.0.0.1:1/0" in line
    assert list(tmp_path.iterdir()) == []


def test_every_fault_is_listed_with_its_syntax() -> None:
    listed = day("--list-faults")
    assert listed.returncode == 0
    assert len(listed.stdout.splitlines()) == 19
    assert "redis-down@HH:MM/30m" in listed.stdout


@pytest.mark.timeout(300)  # a whole day, and one of 25 hours
def test_a_day_writes_its_figures_and_a_trace_with_the_hash_that_it_prints(tmp_path: Path) -> None:
    ended = day(
        *("--date", "2026-11-01", "--bookings", "8", "--seed", "9"),
        *("--json", "day.json", "--trace", "day.jsonl", "--report", "day.html"),
        cwd=tmp_path,
    )
    assert ended.returncode == 0, ended.stderr
    assert "All 16 invariants hold." in ended.stdout
    figures = json.loads((tmp_path / "day.json").read_text())
    lines = (tmp_path / "day.jsonl").read_bytes()
    assert figures["trace_hash"] == sha256(lines).hexdigest()
    assert figures["trace_hash"] in ended.stdout
    assert figures["events"] == len(lines.splitlines())
    assert {path.name for path in tmp_path.iterdir()} == {"day.json", "day.jsonl", "day.html"}
    page = (tmp_path / "day.html").read_text(encoding="utf-8")
    assert "All 16 invariants hold" in page
    assert figures["trace_hash"] in page
    assert figures["replay"] == (
        "python simulations/day.py --date 2026-11-01 --seed 9 --bookings 8"
    )
    assert set(figures["invariants"].values()) == {"held"}
    of_the_readme = {
        "session-cleanup": 25,
        "booking-reminders": 50,
        "daily-analytics": 1,
        "notification-cleanup": 1,
        "no-show-check": 100,
        "availability-cache": 300,
        "health-check": 1500,
    }
    assert of_the_readme.items() <= figures["beat"].items()
    first = json.loads(lines.splitlines()[0])
    assert {"t", "event"} <= set(first)
    assert {"runs", "succeeded", "failed", "retried", "redelivered"} <= set(
        figures["tasks"]["app.tasks.health.health_check"]
    )
    assert {"published", "max_depth", "wait_p50", "wait_p99"} <= set(figures["queues"]["celery"])


def interrupt_all(process: subprocess.Popen[str]) -> None:
    """Ctrl-C as a terminal sends it: to every process in the foreground."""
    os.killpg(process.pid, signal.SIGINT)


def terminate(process: subprocess.Popen[str]) -> None:
    """End it as ``kill`` does: only the command itself receives the signal."""
    process.terminate()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("end", [interrupt_all, terminate])
def test_chaos_that_is_ended_leaves_no_day_running(
    end: Callable[[subprocess.Popen[str]], None],
) -> None:
    with subprocess.Popen(
        [sys.executable, str(ROOT / "simulations" / "day.py"), "--chaos", "--seeds", "1000"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        replaying = _busy_children(process.pid)
        end(process)
        try:
            _, said = process.communicate(timeout=60)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert not [child for child in replaying if child.is_running()]


def _busy_children(parent: int) -> list[psutil.Process]:
    """The processes of a pool, when each has long been replaying a day."""
    for _ in range(600):
        children = [
            child
            for child in psutil.Process(parent).children()
            if "spawn_main" in " ".join(child.cmdline())
        ]
        if children and all(child.cpu_times().user > 4 for child in children):
            return children
        time.sleep(0.1)
    raise AssertionError("no day of chaos was begun")
