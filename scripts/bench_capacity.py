"""How long does work wait, with so many slots for so many bookings? Days on virtual time.

    python -m scripts.bench_capacity                     the table of docs/capacity.md: minutes
    python -m scripts.bench_capacity --day 500 2 4 0     bookings, workers, concurrency, storm

Prints a row of Markdown for each day. A storm is so many bookings more within five minutes,
from 18:00 on. The service times are those of the replay: about 30 ms for each task, 50 ms for
a connection to the mail server and 60 ms for each mail.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from scripts.arguments import command, number, run_command

REPOSITORY = Path(__file__).resolve().parents[1]
STORM_AT = "18:00"
BUSY_SPAN_SECONDS = 300.0
ENDS = ("succeeded", "failed", "retried", "lost")
QUEUES = ("bookings", "email")


@dataclass(frozen=True)
class Day:
    """What is replayed."""

    bookings: int
    workers: int
    concurrency: int
    storm: int = 0

    @property
    def slots(self) -> int:
        """Tasks that can run at the same time."""
        return self.workers * self.concurrency

    def command(self, folder: Path) -> list[str]:
        """The replay, which writes ``day.json`` and ``day.jsonl`` into the folder."""
        words = [sys.executable, "simulations/day.py"]
        words += ["--bookings", str(self.bookings), "--workers", str(self.workers)]
        words += ["--concurrency", str(self.concurrency)]
        # As many instructors as the day needs, so that no booking of a storm is refused.
        words += ["--instructors", str(max(5, (self.bookings + self.storm) // 5))]
        if self.storm:
            words += ["--storm", f"{STORM_AT}/{self.storm}"]
        words += ["--json", str(folder / "day.json"), "--trace", str(folder / "day.jsonl")]
        return words


DAYS = (
    Day(200, 1, 1),
    Day(1000, 1, 1),
    Day(200, 1, 1, storm=1000),
)


@dataclass(frozen=True)
class Run:
    """A task in a slot; seconds since the epoch."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start


def runs(lines: Iterable[str]) -> list[Run]:
    """The runs of a trace, in the order of their ends."""
    begun: dict[tuple[str, str], float] = {}
    found = []
    for line in lines:
        event = json.loads(line)
        if event["event"] == "started":
            begun[event["id"], event["worker"]] = _seconds(event["t"])
        elif event["event"] in ENDS:
            start = begun.pop((event["id"], event.get("worker", "")), None)
            if start is not None:
                found.append(Run(start, _seconds(event["t"])))
    return found


def busiest(found: Iterable[Run], span: float = BUSY_SPAN_SECONDS) -> float:
    """The most slot-seconds that were begun within ``span`` seconds, a multiple of it long."""
    sums: dict[int, float] = {}
    for run in found:
        window = int(run.start // span)
        sums[window] = sums.get(window, 0.0) + run.seconds
    return max(sums.values(), default=0.0)


def replay(day: Day) -> tuple[dict[str, Any], list[Run]]:
    """The day's figures and runs. Raises ``CalledProcessError`` where an invariant broke."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run(
            day.command(folder), cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL, timeout=3600
        )
        with (folder / "day.jsonl").open() as lines:
            return json.loads((folder / "day.json").read_text()), runs(lines)


def row(day: Day, figures: dict[str, Any], found: list[Run]) -> str:
    """The day as a row of the table."""
    busy = busiest(found) / (BUSY_SPAN_SECONDS * day.slots)
    waits = [
        f"{figures['queues'][queue][wait]:.2f}"
        for queue in QUEUES
        for wait in ("wait_p50", "wait_p99")
    ]
    deepest = max(queue["max_depth"] for queue in figures["queues"].values())
    cells = [
        f"{day.bookings:,}" + (f" + {day.storm:,} in 5 min" if day.storm else ""),
        f"{day.workers} × {day.concurrency}",
        f"{len(found):,}",
        f"{sum(run.seconds for run in found):,.0f}",
        f"{busy:.0%}",
        *waits,
        f"{deepest:,}",
    ]
    return f"| {' | '.join(cells)} |"


HEAD = (
    "| bookings a day | workers × slots | runs | slot-seconds | busiest 5 min"
    " | bookings p50 s | p99 s | email p50 s | p99 s | deepest queue |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


def main() -> int:
    parser = command("bench_capacity", "Print how long work waits, as a table.")
    parser.add_argument(
        "--day",
        nargs=4,
        type=number(0, 100_000),
        action="append",
        metavar=("BOOKINGS", "WORKERS", "CONCURRENCY", "STORM"),
    )
    options = parser.parse_args()
    for bookings, workers, concurrency, _ in options.day or ():
        if not (bookings and 1 <= workers <= 64 and 1 <= concurrency <= 256):
            parser.error(
                f"--day {bookings} {workers} {concurrency}: at least 1 booking, 1 to 64 workers "
                "and 1 to 256 slots of each"
            )
    print(HEAD, flush=True)
    for day in [Day(*numbers) for numbers in options.day or ()] or DAYS:
        print(row(day, *replay(day)), flush=True)
    return 0


def _seconds(instant: str) -> float:
    return datetime.fromisoformat(instant).timestamp()


if __name__ == "__main__":
    sys.exit(run_command(main))
