"""The waits between retries: bounded, growing, spread."""

from random import Random
from statistics import mean

import pytest
from hypothesis import given
from hypothesis.strategies import floats, integers

from app.domain.backoff import backoff_delay

seconds = floats(min_value=0.001, max_value=1e9)
seeds = integers(0, 2**64)


@given(retries=integers(0, 10_000), base=seconds, cap=seconds, seed=seeds)
def test_a_delay_lies_between_half_of_the_full_one_and_all_of_it(
    retries: int, base: float, cap: float, seed: int
) -> None:
    exact = min(base * 2 ** min(retries, 100), cap)  # base * 2**100 is beyond any cap here
    delay = backoff_delay(retries, base=base, cap=cap, rng=Random(seed))
    assert exact / 2 <= delay <= exact


@given(retries=integers(0, 10**9), cap=seconds, seed=seeds)
def test_however_many_retries_no_delay_is_longer_than_the_cap(
    retries: int, cap: float, seed: int
) -> None:
    delay = backoff_delay(retries, base=1.0, cap=cap, rng=Random(seed))
    assert 0 < delay <= cap


@given(retries=integers(0, 30), base=seconds, seed=seeds)
def test_below_the_cap_each_delay_is_twice_the_one_before(
    retries: int, base: float, seed: int
) -> None:
    one, next_one = (
        backoff_delay(number, base=base, cap=float("inf"), rng=Random(seed))
        for number in (retries, retries + 1)
    )
    assert next_one == pytest.approx(2 * one)


@given(seed=seeds)
def test_a_herd_of_retries_is_spread_over_the_whole_range(seed: int) -> None:
    rng = Random(seed)
    delays = [backoff_delay(3, base=1.0, cap=60.0, rng=rng) for _ in range(2_000)]
    quarters = [sum(4 + n <= delay < 5 + n for delay in delays) for n in range(4)]
    assert mean(delays) == pytest.approx(6.0, rel=0.05)
    assert min(quarters) > 350  # of 500 expected


@given(seed=seeds, retries=integers(0, 100))
def test_the_same_generator_gives_the_same_delay(seed: int, retries: int) -> None:
    one, other = (backoff_delay(retries, base=2.0, cap=600.0, rng=Random(seed)) for _ in range(2))
    assert one == other


@pytest.mark.parametrize(
    ("retries", "base", "cap"), [(-1, 1.0, 1.0), (0, 0.0, 1.0), (0, 1.0, 0.0), (0, float("nan"), 1)]
)
def test_bounds_that_make_no_sense_are_refused(retries: int, base: float, cap: float) -> None:
    with pytest.raises(ValueError, match="retries="):
        backoff_delay(retries, base=base, cap=cap, rng=Random(0))
