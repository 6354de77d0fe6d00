"""The command line, the table and the JSON of every benchmark."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from rich.console import Console
from rich.table import Table

from scripts import arguments
from scripts.arguments import Parser
from scripts.benchmarks.machine import machine
from scripts.benchmarks.series import Series

T = TypeVar("T")
ROUNDS = 3


@dataclass
class Benchmark:
    """What a run found."""

    name: str
    title: str
    series: list[Series]
    options: dict[str, Any]
    """What was asked for: ``n``, ``rounds`` and the like."""
    verdict: str
    """One sentence, first on the screen."""
    notes: list[str] = field(default_factory=list)
    """What the reader has to know to trust the figures."""
    figures: dict[str, Any] = field(default_factory=dict)
    """Figures for machines beside those of the series."""

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Benchmark:
        """What a table needs of ``as_json``."""
        series = [Series.from_json(each) for each in told["series"]]
        return cls(
            name=told["benchmark"],
            title=told["title"],
            series=series,
            options=told["options"],
            verdict=told["verdict"],
            notes=told["notes"],
        )

    def as_json(self) -> dict[str, Any]:
        """The whole run, with the machine it ran on."""
        return {
            "benchmark": self.name,
            "title": self.title,
            "verdict": self.verdict,
            "options": self.options,
            **self.figures,
            "series": [each.as_json() for each in self.series],
            "notes": self.notes,
            "machine": machine(),
        }


def parser(name: str, doc: str | None, *, n: int, what: str, least: int = 1) -> Parser:
    """One with ``--n``, ``--rounds`` and ``--json``; ``what`` says what is counted by ``--n``,
    of which there must be ``least``."""
    made = arguments.command(name, doc)
    made.add_argument("--n", type=arguments.number(least), default=n, help=f"{what} ({n})")
    made.add_argument(
        "--rounds",
        type=arguments.positive,
        default=ROUNDS,
        help=f"of each variant, in turns ({ROUNDS})",
    )
    made.add_argument("--json", action="store_true", help="print JSON, for machines")
    return made


class Attempts:
    """Rounds of several systems, of which one that fails does not end the others' rounds."""

    def __init__(self) -> None:
        self.failed: dict[str, str] = {}
        """The reason in one line, by the name of the variant."""

    def measure(self, name: str, act: Callable[[], T], *, ours: bool) -> T | None:
        """What ``act`` measures, or None for a variant that fails, now or in an earlier round.

        Prints one line about a peer that fails. Raises ``CannotGoOnError`` where ours fails:
        without it there is nothing to compare.
        """
        if name in self.failed:
            return None
        progress(name)
        try:
            return act()
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            if ours:
                raise arguments.CannotGoOnError(f"{name} failed: {reason}") from error
            self.failed[name] = reason
            progress(f"not measured: {name}: {reason}")
            return None

    def kept(self, series: Mapping[str, Series]) -> dict[str, Series]:
        """The series whose every round was measured."""
        return {name: each for name, each in series.items() if name not in self.failed}

    @property
    def notes(self) -> list[str]:
        """For the table: what is not in it, and why."""
        return [f"Not measured: {name}: {reason}." for name, reason in self.failed.items()]


def progress(text: str) -> None:
    """Say on stderr what is being measured."""
    print(text, file=sys.stderr, flush=True)


def tell(found: Benchmark, *, as_json: bool) -> None:
    """Print it, for a machine or for a person."""
    if as_json:
        print(json.dumps(found.as_json(), indent=2))
        return
    # A table that is cut to a narrow terminal tells nothing.
    console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 200)
    console.print(found.verdict, markup=False, highlight=False)
    if found.options.get("rounds", ROUNDS) < ROUNDS:
        console.print(f"fewer than {ROUNDS} rounds: no figure to rely on", highlight=False)
    table = Table(title=found.title, title_justify="left")
    columns, rows = cells(found)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=number == 0)
    for row in rows:
        table.add_row(*row)
    console.print(table, markup=False)
    for note in found.notes:
        console.print(f"- {note}", markup=False, highlight=False)


def tell_all(found: Sequence[Benchmark], *, as_json: bool) -> None:
    """As ``tell``, for a command with several tables: JSON is a list of them."""
    if as_json:
        print(json.dumps([each.as_json() for each in found], indent=2))
        return
    for each in found:
        tell(each, as_json=False)


def cells(found: Benchmark) -> tuple[list[str], list[list[str]]]:
    """The table: its columns, and a row for each series."""
    ratios = _keys(found.series, lambda each: each.ratios)
    notes = _keys(found.series, lambda each: each.notes)
    units = {each.unit for each in found.series}
    unit = units.pop() if len(units) == 1 else None
    columns = [
        "variant",
        unit or "median",
        "least",
        "most",
        *(key.replace("_", " ") for key in (*ratios, *notes)),
    ]
    rows = []
    for each in found.series:
        if not each.values:
            continue
        suffix = "" if unit else f" {each.unit}"
        rows.append(
            [
                each.name,
                shown(each.median) + suffix,
                shown(min(each.values)),
                shown(max(each.values)),
                *(f"{each.ratios[key]:.2f}" if key in each.ratios else "" for key in ratios),
                *(shown(each.notes[key]) if key in each.notes else "" for key in notes),
            ]
        )
    return columns, rows


def shown(value: Any) -> str:
    """A figure with as many digits as tell something."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if not isinstance(value, float):
        return str(value)
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def _keys(series: Sequence[Series], of: Callable[[Series], dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for each in series for key in of(each)))
