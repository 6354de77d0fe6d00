"""What times are good enough, and whether a load test kept to them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from app import routing
from loadtests._errors import LoadTestError
from loadtests._ledger import Measure

DEFAULT_FILE = Path(__file__).with_name("objectives.toml")

MOST_SECONDS = 7 * 86_400
"""A longer objective, or an infinite one, is never missed."""

_MEASURES = {"in_queue": Measure.IN_QUEUE, "run": Measure.RUN}
_PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d+)?)")


class Figures(Protocol):
    """The statistics of a load test."""

    def percentile(self, measure: Measure, queue: str, part: float) -> float | None:
        """Seconds within which ``part`` (0 to 1) of them were; ``None`` where there is none."""
        ...


@dataclass(frozen=True)
class Objective:
    queue: str
    measure: Measure
    part: float
    """0.99: of 100, 99 take no longer."""
    seconds: float

    @property
    def percentile(self) -> str:
        return f"p{100 * self.part:g}"


@dataclass(frozen=True)
class Miss:
    objective: Objective
    seconds: float

    def __str__(self) -> str:
        missed = self.objective
        return (
            f"{missed.queue}: {missed.percentile} {missed.measure} is {self.seconds:.3g} s, "
            f"the objective {missed.seconds:g} s"
        )


def load(file: Path) -> tuple[Objective, ...]:
    """The objectives in a TOML file. Raises ``LoadTestError``."""
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise LoadTestError(f"--objectives {file}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # also of bytes that are no text, and of endless numbers
        raise LoadTestError(f"--objectives {file}: no TOML: {error}") from error
    except RecursionError:
        raise LoadTestError(f"--objectives {file}: nested too deep") from None
    found = [
        objective for queue, measures in tables.items() for objective in _of(file, queue, measures)
    ]
    if not found:
        raise LoadTestError(
            f"--objectives {file}: it has none; for example [bookings] and in_queue = {{ p99 = 1 }}"
        )
    return tuple(found)


def _of(file: Path, queue: str, measures: Any) -> Iterable[Objective]:
    where = f"--objectives {file}: [{queue}]"
    if not routing.is_queue(queue):
        known = ", ".join(spec.name for spec in routing.QUEUES)
        raise LoadTestError(f"{where}: there is no such queue, only {known}")
    for name, percentiles in _table(where, measures).items():
        if name not in _MEASURES:
            raise LoadTestError(f"{where} {name}: there are only {' and '.join(_MEASURES)}")
        for percentile, seconds in _table(f"{where} {name}", percentiles).items():
            found = _PERCENTILE.fullmatch(percentile)
            if found is None:
                raise LoadTestError(f"{where} {name}: {percentile!r} is no percentile as p95 is")
            number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
            if not number or not 0 < seconds <= MOST_SECONDS:
                raise LoadTestError(
                    f"{where} {name}.{percentile}: {seconds!r} is no number of seconds above 0 "
                    f"and up to {MOST_SECONDS:,}"
                )
            yield Objective(queue, _MEASURES[name], round(float(found[1]) / 100, 6), float(seconds))


def _table(where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise LoadTestError(f"{where}: {value!r} is no table, as {{ p99 = 1 }} is")
    return value


def misses(objectives: Iterable[Objective], figures: Figures) -> list[Miss]:
    """The objectives that were not kept. What was not measured misses none."""
    measured = (
        (each, figures.percentile(each.measure, each.queue, each.part)) for each in objectives
    )
    return [
        Miss(each, seconds)
        for each, seconds in measured
        if seconds is not None and seconds > each.seconds
    ]


def by_queue(missed: Iterable[Miss]) -> Mapping[str, list[Miss]]:
    found: dict[str, list[Miss]] = {}
    for each in missed:
        found.setdefault(each.objective.queue, []).append(each)
    return found
