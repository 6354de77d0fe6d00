"""How long each task takes, how often it fails, how often it comes: ``--service-times``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import log
from pathlib import Path
from random import Random
from statistics import NormalDist
from typing import Any

P99 = NormalDist().inv_cdf(0.99)
MOST_SECONDS = 7 * 86_400
"""A run of a week. Longer ones, also drawn, are cut."""
LEAST_SECONDS = 1e-6
"""What times are rounded to."""
MOST_RUNS = 5_000_000
"""Of ``per_day``, in a whole replay: each is kept in memory."""
EXAMPLE = 'for example: ["proj.tasks.resize"] seconds = {lognormal = [0.4, 6.0]}'


class ServiceTimesError(ValueError):
    """The file is wrong; the message says where, and what would be right."""


@dataclass(frozen=True)
class TaskTimes:
    """A task's load."""

    median: float = 0.1
    """Seconds."""
    p99: float | None = None
    """Seconds: with it the time is drawn from a lognormal distribution."""
    failure_rate: float = 0.0
    per_day: int = 0
    """Runs a day beside those of beat."""

    def draw(self, rng: Random) -> float:
        """Seconds of one run."""
        if self.p99 is None:
            return self.median
        sigma = log(self.p99 / self.median) / P99
        return round(min(rng.lognormvariate(log(self.median), sigma), MOST_SECONDS), 6)


@dataclass(frozen=True)
class ServiceTimes:
    """What the file says of each task; of others, what its ``[default]`` says."""

    default: TaskTimes = TaskTimes()
    tasks: Mapping[str, TaskTimes] = field(default_factory=dict)

    def of(self, task: str) -> TaskTimes:
        return self.tasks.get(task, self.default)


def read(path: Path | None, known: set[str], *, days: int = 1) -> ServiceTimes:
    """Read the file for a replay of so many days; ``known`` are the names of tasks.

    Raises ``ServiceTimesError``.
    """
    if path is None:
        return ServiceTimes()
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ServiceTimesError(f"{path} cannot be read ({error})") from error
    except ValueError as error:  # also of a number with thousands of digits
        raise ServiceTimesError(f"{path} is no TOML: {error}") from error
    except RecursionError:
        raise ServiceTimesError(f"{path} is nested too deep: {EXAMPLE}") from None
    default = _times(path, "default", found.pop("default", {}), TaskTimes())
    if default.per_day:
        raise ServiceTimesError(f"{path}: [default] takes no per_day: name the task")
    if unknown := sorted(set(found) - known):
        raise ServiceTimesError(f"{path}: the app has no task {unknown[0]!r}")
    tasks = {name: _times(path, name, table, default) for name, table in found.items()}
    runs = days * sum(each.per_day for each in tasks.values())
    if runs > MOST_RUNS:
        raise ServiceTimesError(
            f"{path}: per_day of all tasks makes {runs:,} runs in --days {days}: "
            f"at most {MOST_RUNS:,} fit"
        )
    return ServiceTimes(default, tasks)


def _times(path: Path, name: str, table: Any, default: TaskTimes) -> TaskTimes:
    where = f"{path}: [{name}]"
    if not isinstance(table, dict):
        raise ServiceTimesError(f"{where} is no table; {EXAMPLE}")
    if unknown := sorted(set(table) - {"seconds", "failure_rate", "per_day"}):
        raise ServiceTimesError(
            f"{where} has no {unknown[0]!r}, only seconds, failure_rate and per_day"
        )
    median, p99 = _seconds(where, table.get("seconds"), default)
    rate = table.get("failure_rate", default.failure_rate)
    if not _is_number(rate) or not 0 <= rate <= 1:
        raise ServiceTimesError(f"{where} failure_rate is a share from 0 to 1, not {rate!r}")
    per_day = table.get("per_day", 0)
    if isinstance(per_day, bool) or not isinstance(per_day, int) or not 0 <= per_day <= MOST_RUNS:
        raise ServiceTimesError(
            f"{where} per_day is a number of runs from 0 to {MOST_RUNS:,}, not {per_day!r}"
        )
    return TaskTimes(median, p99, float(rate), per_day)


def _seconds(where: str, given: Any, default: TaskTimes) -> tuple[float, float | None]:
    if given is None:
        return default.median, default.p99
    if _is_number(given) and 0 <= given <= MOST_SECONDS:
        return float(given), None
    if isinstance(given, dict) and set(given) == {"lognormal"}:
        pair = given["lognormal"]
        if (
            isinstance(pair, list)
            and len(pair) == 2
            and all(map(_is_number, pair))
            and LEAST_SECONDS <= pair[0] <= pair[1] <= MOST_SECONDS
        ):
            return float(pair[0]), float(pair[1])
    raise ServiceTimesError(
        f"{where} seconds is a number, or a median and a p99, of at most {MOST_SECONDS:,}; "
        f"{EXAMPLE}"
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
