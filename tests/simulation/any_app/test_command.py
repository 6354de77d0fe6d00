"""``python simulations/day.py --app``: other teams' apps, no line of theirs changed or run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.simulation.report.pages import Read

pytestmark = pytest.mark.timeout(180)  # whole days, in processes of their own

NOTHING = dict.fromkeys(("runs", "succeeded", "failed", "retried", "redelivered", "lost"), 0)
ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "simulations" / "examples"


def day(folder: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "simulations" / "day.py"), *arguments],
        cwd=EXAMPLES / folder,
        capture_output=True,
        text=True,
        check=False,
    )


def replayed(folder: str, tmp_path: Path, *arguments: str) -> dict[str, Any]:
    ended = day(folder, *arguments, "--json", str(tmp_path / "day.json"))
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    figures: dict[str, Any] = json.loads((tmp_path / "day.json").read_text())
    return figures


SHOP = ("--app", "app.celery:app", "--service-times", "times.toml")
FEEDS = ("--app", "feeds.worker", "--service-times", "times.toml")


def test_a_package_called_app_with_priorities_and_a_crontab(tmp_path: Path) -> None:
    """Its bodies and its signal handlers raise, and its broker does not exist."""
    shop = replayed("shop", tmp_path, *SHOP)
    assert shop["beat"] == {"invoices": 1, "nightly-report": 1, "stock": 144}
    assert shop["tasks"]["app.checkout"]["succeeded"] == 3000
    assert shop["tasks"]["app.checkout"]["retried"] > 20
    report = {"runs": 1, "failed": 1}  # at its soft time limit
    assert shop["tasks"]["app.report"] == {**NOTHING, **report}
    assert shop["tasks"]["app.invoices"] == {**NOTHING, "runs": 1, "succeeded": 1}
    assert shop["together"]["invoices + nightly-report"] == 1
    assert shop["timezone"] == "Europe/Berlin"


def test_it_has_every_figure_that_a_marketplace_has(tmp_path: Path) -> None:
    feeds = replayed("feeds", tmp_path, *FEEDS, "--fault", "kill-worker@10:00")
    for key in ("broker", "events", "events_per_second", "wall_seconds", "mails", "invariants"):
        assert key in feeds
    assert feeds["sometimes"]["fault: kill-worker"] == 1
    assert feeds["sometimes"]["a process killed"] == 1
    assert max(hour["busiest"] for hour in feeds["hours"]) <= 8


def test_the_report_says_when_the_backlog_is_deepest_and_what_the_clocks_do(
    tmp_path: Path,
) -> None:
    path = tmp_path / "day.html"
    few = ("--workers", "1", "--concurrency", "1", "--date", "2026-10-25")
    figures = replayed("shop", tmp_path, *SHOP, *few, "--report", str(path))
    found = Read(path.read_text(encoding="utf-8"))
    verdict = found.within("verdict")
    assert "The backlog is deepest from 2026-10-25 02:00 CEST" in verdict
    assert "stock runs 144 times, where its pace asks for 150" in verdict
    assert "from 03:00 CEST to 02:00 CET" in found.within("timeline")
    assert "invoices + nightly-report" in found.within("together")
    assert found.within("replay-command") == figures["replay"]
    for part in ("figures", "queues", "beat", "tasks", "sometimes"):
        assert part in found.ids
    assert "invariants" not in found.ids


def test_what_the_clocks_do_to_a_schedule(tmp_path: Path) -> None:
    """Celery's own crontab loses the repeated hour: 144 runs on a day of 150 (celery#10107)."""
    changing = replayed("shop", tmp_path, *SHOP)["changing_days"]
    assert {day: runs["stock"] for day, runs in changing.items()} == {
        "2026-07-15 (24 h)": 144,
        "2026-10-25 (25 h)": 144,
        "2027-03-28 (23 h)": 138,
    }


def test_intervals_routes_and_a_chain(tmp_path: Path) -> None:
    feeds = replayed("feeds", tmp_path, *FEEDS)
    assert feeds["beat"] == {"clean": 24, "fetch": 288}
    assert {name: queue["published"] > 0 for name, queue in feeds["queues"].items()} == {
        "celery": True,
        "network": True,
        "search": True,
    }
    assert feeds["tasks"]["feeds.index"]["succeeded"] == 288
    assert feeds["changing_days"] == {}  # UTC has none


def test_too_few_slots_show_as_a_backlog_and_a_wait(tmp_path: Path) -> None:
    few = replayed("shop", tmp_path, *SHOP, "--workers", "1", "--concurrency", "1")
    many = replayed("shop", tmp_path, *SHOP)
    assert few["queues"]["celery"]["wait_p99"] > 60 > many["queues"]["celery"]["wait_p99"]
    deepest = max(few["hours"], key=lambda hour: hour["deepest"])
    assert deepest["begins"] == "2026-07-15 02:00 CEST"  # behind the invoices


def test_a_seed_gives_the_same_day_again_also_with_a_kill(tmp_path: Path) -> None:
    kill = ("--fault", "kill-worker@10:00", "--seed", "5")
    first, again = (replayed("feeds", tmp_path, *FEEDS, *kill) for _ in range(2))
    assert first["trace_hash"] == again["trace_hash"]
    assert first["replay"] == again["replay"]


ODD_APP = """
from celery import Celery

app = Celery("odd", broker="redis://nowhere")
app.conf.beat_schedule = {
    "gone": {"task": "odd.gone", "schedule": 3600.0},
    "slow": {"task": "odd.slow", "schedule": 3600.0},
}
app.conf.task_routes = {"odd.slow": {"queue": "slow"}}


@app.task(name="odd.slow")
def slow():
    pass
"""


def test_what_real_workers_would_do_otherwise_is_said(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(ODD_APP)
    path, page = tmp_path / "day.json", tmp_path / "day.html"
    ended = day(str(tmp_path), "--app", "odd:app", "--json", str(path), "--report", str(page))
    assert ended.returncode == 0, ended.stderr
    figures = json.loads(path.read_text())
    assert figures["warnings"] == [
        "beat entry gone names odd.gone, which is no task of the app: a worker throws its "
        "messages away",
        "the replay's workers take from celery, slow; a real one takes from celery alone where "
        "-Q does not name slow",
    ]
    for warning in figures["warnings"]:
        assert f"warning: {warning}" in ended.stdout
        assert warning in Read(page.read_text(encoding="utf-8")).within("verdict")
    assert figures["beat"] == {"gone": 24, "slow": 24}
    assert figures["tasks"]["odd.slow"]["succeeded"] == 24
    assert max(hour["deepest"] for hour in figures["hours"]) <= 2, "what is thrown away is gone"
    assert figures["left"] <= 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--app", "feeds.worker:nosuch"], "--app feeds.worker:nosuch: feeds.worker has no nosuch"),
        (["--app", "feeds.nothing"], "--app feeds.nothing: ModuleNotFoundError"),
        (["--app", "feeds.worker:chain"], "that is no Celery app"),
        (["--app", "feeds.worker", "--fault", "smtp-down@10:00/5m"], "there is no fault"),
        (["--app", "feeds.worker", "--service-times", "none.toml"], "none.toml cannot be read"),
        (["--app", "feeds.worker", "--service-times", "worker.toml"], "cannot be read"),
        (["--app", "feeds.worker", "--report", "no/day.html"], "in a folder that exists"),
        (["--app", "feeds.worker", "--bookings", "5"], "unrecognized arguments: --bookings 5"),
        (["--app", "feeds.worker", "--broker", "redis://127.0.0.1:1/0"], "--broker redis://"),
    ],
)
def test_a_wrong_argument_ends_with_one_line_that_says_what_is_right(
    arguments: list[str], said: str
) -> None:
    ended = day("feeds", *arguments)
    assert ended.returncode == 2
    [line] = ended.stderr.splitlines()
    assert said in line
