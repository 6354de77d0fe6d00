"""How fast is virtual time? Lines of the trace a second, and whether it stays linear.

    python -m scripts.bench_simulation                   up to 1,000,000 lines, a year of beat
    python -m scripts.bench_simulation --most 100000 --year 0

A deployment of two workers runs short tasks from a schedule and from a publisher, in memory,
with no file written. The ratio is to the first, smallest run of the same call. Peak memory is
of the whole process so far.
"""

from __future__ import annotations

import json
import resource
import sys
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from celery import Celery
from celery.schedules import crontab

from scripts.arguments import command, new_file, number, run_command
from simulations.engine import Deployment, WorkerGroup
from simulations.engine.clock import wall_seconds

START = datetime(2026, 1, 1, tzinfo=UTC)
SMALLEST = 10_000
LINES_OF_A_TASK = 5
ENTRIES = 9


def an_app(schedule: dict[str, Any]) -> Celery:
    """Late acknowledgement, ten priorities, one task."""
    app = Celery("bench", broker="redis://virtual", set_as_current=False)
    app.conf.update(
        task_ignore_result=True,
        task_acks_late=True,
        worker_prefetch_multiplier=1,
        broker_transport_options={"priority_steps": list(range(10))},
        beat_schedule=schedule,
    )

    @app.task(name="bench.work", shared=False)
    def work() -> None:
        """Do nothing."""

    return app


def measure(lines: int) -> dict[str, float]:
    """Run about so many lines."""
    app = an_app({"minutely": {"task": "bench.work", "schedule": crontab()}})
    began = wall_seconds()
    with Deployment(app, start=START, workers=[WorkerGroup(2, 4)]) as deployment:
        for number in range(lines // LINES_OF_A_TASK):
            deployment.call_at(START + timedelta(seconds=number), partial(publish, app))
        deployment.run_until(START + timedelta(seconds=lines // LINES_OF_A_TASK + 10))
        found = deployment.trace.lines
    seconds = wall_seconds() - began
    return {"lines": found, "seconds": seconds, "lines_per_second": found / seconds}


def publish(app: Celery) -> None:
    app.tasks["bench.work"].delay()


def beat_alone(days: int) -> dict[str, float]:
    """Nine entries, and nobody who takes their messages."""
    schedule = {
        f"entry-{hour}": {"task": "bench.work", "schedule": crontab(hour=hour, minute=0)}
        for hour in range(ENTRIES - 3)
    }
    schedule |= {
        f"every-{step}": {"task": "bench.work", "schedule": crontab(minute=f"*/{step}")}
        for step in (5, 15, 30)
    }
    began = wall_seconds()
    with Deployment(an_app(schedule), start=START, workers=[WorkerGroup(0)]) as deployment:
        deployment.run_for(timedelta(days=days))
        runs = deployment.trace.counts["beat"]
    seconds = wall_seconds() - began
    return {"days": days, "runs": runs, "seconds": seconds, "runs_per_second": runs / seconds}


def main() -> int:
    parser = command("bench_simulation", __doc__)
    parser.add_argument(
        "--most", type=number(SMALLEST), default=1_000_000, help="lines of the longest run"
    )
    parser.add_argument(
        "--year", type=number(0, 3650), default=365, help="days of beat alone; 0: none"
    )
    parser.add_argument("--json", type=new_file, metavar="FILE")
    options = parser.parse_args()
    figures: dict[str, Any] = {"runs": []}
    print(f"{'lines':>12} {'seconds':>9} {'lines/s':>9} {'ratio':>6} {'peak MB':>8}")
    lines, first = SMALLEST, None
    while lines <= options.most:
        run = measure(lines)
        first = first or run["lines_per_second"]
        run["ratio_to_smallest"] = run["lines_per_second"] / first
        run["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        figures["runs"].append(run)
        print(
            f"{run['lines']:>12,} {run['seconds']:>9.1f} {run['lines_per_second']:>9,.0f} "
            f"{run['ratio_to_smallest']:>6.2f} {run['peak_mb']:>8.0f}",
            flush=True,
        )
        lines *= 10
    if options.year:
        year = figures["beat"] = beat_alone(options.year)
        print(
            f"beat alone, {year['days']} days: {year['runs']:,} runs in {year['seconds']:.1f} s, "
            f"{year['runs_per_second']:,.0f} a second"
        )
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
