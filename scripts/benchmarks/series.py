"""Figures of rounds that took turns, and what is said of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, TypeVar

T = TypeVar("T")

RATIO = "ratio_to"
"""In the JSON key of every ratio."""


@dataclass
class Series:
    """One variant's figures, a value for each round."""

    name: str
    unit: str
    values: list[float] = field(default_factory=list)
    ratios: dict[str, float] = field(default_factory=dict)
    """By their JSON keys, such as ``ratio_to_idle``: this median over the baseline's."""
    notes: dict[str, Any] = field(default_factory=dict)
    """What else is known of it, by JSON keys."""

    @property
    def median(self) -> float:
        return median(self.values)

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Series:
        """The reverse of ``as_json``."""
        own = {"name", "unit", "median", "least", "most", "rounds"}
        rest = {key: value for key, value in told.items() if key not in own}
        ratios = {key: value for key, value in rest.items() if RATIO in key}
        notes = {key: value for key, value in rest.items() if key not in ratios}
        return cls(told["name"], told["unit"], list(told["rounds"]), ratios, notes)

    def as_json(self) -> dict[str, Any]:
        """What a machine wants to know."""
        return {
            "name": self.name,
            "unit": self.unit,
            "median": significant(self.median),
            "least": significant(min(self.values)),
            "most": significant(max(self.values)),
            "rounds": [significant(value) for value in self.values],
            **{key: significant(value) for key, value in self.ratios.items()},
            **self.notes,
        }


def alternating(variants: Sequence[T], rounds: int) -> Iterator[T]:
    """Each variant ``rounds`` times, in turns; every second turn runs backwards.

    The machine is not the same all the time: so each goes first as often as last.
    """
    for number in range(rounds):
        yield from variants if number % 2 == 0 else reversed(variants)


def compare(
    series: Iterable[Series],
    baselines: Mapping[str, Series | None],
) -> None:
    """Note each one's ratio to every baseline, by the ratio's JSON key."""
    for each in series:
        for key, baseline in baselines.items():
            if baseline is not None and each.values and baseline.values and baseline.median:
                each.ratios[key] = each.median / baseline.median


def fastest(
    series: Iterable[Series], of: Callable[[Series], bool] = lambda _: True
) -> Series | None:
    """The one with the highest median among those that ``of`` chooses."""
    chosen = [each for each in series if of(each) and each.values]
    return max(chosen, key=lambda each: each.median, default=None)


def significant(value: float, digits: int = 4) -> float:
    """``value`` rounded to so many digits that tell something."""
    return float(f"{value:.{digits}g}")
