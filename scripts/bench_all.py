"""Run every benchmark and write docs/performance.md from this one run: below half an hour.

    scripts/bench_all                         all of it, alone on the machine
    scripts/bench_all --only storm --page page.md
    scripts/bench_all --small --page page.md  does it run? no figure to rely on

Each benchmark is a process of its own, and can be run alone for more: the page says how.
``parse`` needs nothing but Python, so that a bad argument is refused before anything is installed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from scripts import arguments
from scripts.arguments import Parser, new_file

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / "docs" / "performance.md"
LIMIT_SECONDS = 1800.0
GOAL_MISSED = 1
"""Exit status of a benchmark that ran, and that did not reach what it is to reach."""


@dataclass(frozen=True)
class Chapter:
    """One benchmark of the run."""

    name: str
    words: tuple[str, ...]
    small: tuple[str, ...]

    @property
    def module(self) -> str:
        return f"scripts.bench_{self.name}"


CHAPTERS = (
    Chapter("storm", ("--n", "4000"), ("--n", "20", "--system", "ours", "--system", "dramatiq")),
    Chapter("drain", ("--n", "600"), ("--n", "20", "--task", "noop", "--settings", "durable")),
    Chapter("urgency", ("--n", "200"), ("--n", "10", "--flood", "2000", "--without-peers")),
    Chapter("overhead", ("--n", "1000"), ("--n", "20")),
    Chapter("enqueue", ("--n", "2000"), ("--n", "20", "--database", "sqlite")),
    Chapter("growth", ("--n", "1000000"), ("--n", "1000")),
)

Found = list[tuple[Chapter, list[dict[str, Any]]]]


def run(chapter: Chapter, words: tuple[str, ...]) -> list[dict[str, Any]]:
    """What the benchmark found; ``RuntimeError`` with its last words where it did not end well."""
    with subprocess.Popen(
        [sys.executable, "-m", chapter.module, "--json", *words],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            told, _ = process.communicate(timeout=LIMIT_SECONDS)
        except BaseException:
            process.terminate()  # it ends what it has started
            raise
    if process.returncode not in {0, GOAL_MISSED} or not told:
        raise RuntimeError(f"{chapter.module} ended with {process.returncode}, see above")
    found = json.loads(told)
    return found if isinstance(found, list) else [found]


def page(
    found: Found,
    *,
    on: dict[str, Any],
    at: datetime,
    seconds: float,
    words: dict[str, str],
    failed: Sequence[str] = (),
) -> str:
    """The page; ``words`` are each chapter's options, ``failed`` those that found nothing."""
    versions = ", ".join(f"{name} {number}" for name, number in on["versions"].items())
    lines = [
        "# Performance",
        "",
        "Written by `scripts/bench_all` from one run; do not edit. Each table has the median of "
        "rounds that took turns, the least and the most of them, and the ratio to a baseline of "
        "the same run. Figures of another machine differ, ratios less so.",
        "",
        f"- {at:%Y-%m-%d %H:%M} UTC, commit {on['commit']}, {seconds / 60:.0f} minutes",
        f"- {on['processor']}, {on['cores']} cores, {on['memory_gb']:g} GB, {on['system']}; "
        f"load before the run {on['load_before']:g}",
        f"- Python {on['python']}, {versions}",
        "- Every system has two processes that run one task at a time, the same Redis without "
        "persistence, and no log line for a task, unless its row says otherwise.",
        "",
    ]
    for chapter, benchmarks in found:
        for each in benchmarks:
            lines += _section(each)
        lines += ["```bash", f"python -m {chapter.module} {words[chapter.name]}", "```", ""]
    if failed:
        lines += [f"Not measured in this run, for they ended in an error: {', '.join(failed)}.", ""]
    return "\n".join(lines)


def _section(found: dict[str, Any]) -> list[str]:
    from scripts.benchmarks import command

    columns, rows = command.cells(command.Benchmark.from_json(found))
    verdict = found["verdict"]
    return [
        f"## {found['title']}",
        "",
        f"{verdict[:1].upper()}{verdict[1:]}.",
        "",
        f"| {' | '.join(columns)} |",
        f"|---|{'---:|' * (len(columns) - 1)}",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        f"- {_of_rounds(found['options']['rounds'])}",
        *(f"- {note}" for note in found["notes"]),
        "",
    ]


def _of_rounds(rounds: int) -> str:
    from scripts.benchmarks import command

    if rounds < command.ROUNDS:
        return f"**{rounds} of at least {command.ROUNDS} rounds: no figure to rely on.**"
    return f"{rounds} rounds of each."


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The options. ``SystemExit(2)`` after one line on stderr about a bad argument."""
    names = [chapter.name for chapter in CHAPTERS]
    parser = Parser(prog="scripts/bench_all", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", action="append", choices=names, help="all by default")
    parser.add_argument("--small", action="store_true", help="tiny runs, to see that all works")
    parser.add_argument(
        "--page", type=new_file, default=PAGE, metavar="FILE", help="docs/performance.md"
    )
    parser.add_argument(
        "--json", type=new_file, metavar="FILE", help="keep what was found there, too"
    )
    options = parser.parse_args(words)
    if options.page == PAGE and (options.only or options.small):
        part = "--small" if options.small else "--only"
        parser.error(
            f"{part}: a part of the benchmarks is not a page for docs. Name another with --page"
        )
    return options


def main() -> int:
    options = parse()
    from app import clock
    from scripts.benchmarks import command
    from scripts.benchmarks.machine import machine

    on, at, began = machine(), clock.utcnow(), time.monotonic()
    found: Found = []
    failed: list[str] = []
    words: dict[str, str] = {}
    for chapter in CHAPTERS:
        if options.only and chapter.name not in options.only:
            continue
        chosen = (*chapter.small, "--rounds", "1") if options.small else chapter.words
        words[chapter.name] = " ".join(chosen)
        command.progress(f"== {chapter.name}, {time.monotonic() - began:.0f} s")
        try:
            found.append((chapter, run(chapter, chosen)))
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            # The others' figures took minutes, and are as good without this one's.
            command.progress(str(error))
            failed.append(chapter.name)
    seconds = time.monotonic() - began
    if options.json is not None:
        told = {chapter.name: benchmarks for chapter, benchmarks in found}
        options.json.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    written = page(found, on=on, at=at, seconds=seconds, words=words, failed=failed)
    options.page.write_text(written, encoding="utf-8")
    for _, benchmarks in found:
        for each in benchmarks:
            print(each["verdict"])
    print(f"{options.page}, in {seconds / 60:.1f} minutes")
    if failed:
        print(f"not measured: {', '.join(failed)}, see above")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(arguments.run_command(main))
