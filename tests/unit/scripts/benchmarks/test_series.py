"""What is said of rounds that took turns."""

import pytest

from scripts.benchmarks.command import Benchmark, cells
from scripts.benchmarks.runs import Run, percentile, rate
from scripts.benchmarks.series import Series, alternating, compare, fastest


def test_each_variant_goes_first_as_often_as_last() -> None:
    assert list(alternating(["a", "b", "c"], 2)) == ["a", "b", "c", "c", "b", "a"]


def test_the_median_and_not_the_mean_is_compared() -> None:
    ours, theirs = Series("ours", "tasks/s", [10, 300, 20]), Series("theirs", "tasks/s", [10])
    compare([ours], {"ratio_to_theirs": theirs})
    assert ours.as_json()["median"] == 20
    assert ours.as_json()["ratio_to_theirs"] == 2


def test_no_ratio_is_said_where_the_baseline_was_not_measured() -> None:
    ours = Series("ours", "tasks/s", [10])
    compare([ours], {"ratio_to_fastest_peer": None, "ratio_to_idle": Series("idle", "ms")})
    assert ours.ratios == {}


def test_the_fastest_is_chosen_among_those_that_are_asked_for() -> None:
    ours, slow, fast = (Series(n, "", [v]) for n, v in (("ours", 9.0), ("a", 1.0), ("b", 2.0)))
    assert fastest([ours, slow, fast], lambda each: each.name != "ours") is fast


def test_the_table_leaves_out_what_was_not_measured() -> None:
    measured = Series("a", "tasks/s", [1000.0], ratios={"ratio_to_idle": 1.5}, notes={"n": 5000})
    found = Benchmark("x", "X", [measured, Series("b", "tasks/s")], {}, "fine")
    columns, rows = cells(found)
    assert columns == ["variant", "tasks/s", "least", "most", "ratio to idle", "n"]
    assert rows == [["a", "1,000", "1,000", "1,000", "1.50", "5,000"]]


def test_the_rate_leaves_out_the_time_in_which_processes_start() -> None:
    late_start = [Run(0, 0), *(Run(0, 10 + number) for number in range(10))]
    assert rate(late_start) == pytest.approx(1.0)


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(number) for number in range(100)]
    assert [percentile(values, each) for each in (50, 99, 100)] == [50, 99, 99]
