from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest

from app import entropy, trace

A, B = "a" * 32, "b" * 32


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    before = entropy.use(Random(1))
    yield
    entropy.use(before)


def test_what_is_called_inside_has_the_callers_trace() -> None:
    with trace.use(A):
        assert trace.current() == A


def test_the_outer_trace_is_in_force_again_afterwards() -> None:
    with trace.use(A):
        with trace.use(B):
            pass
        assert trace.current() == A


def test_without_a_trace_each_call_gets_a_new_one() -> None:
    first, second = trace.current(), trace.current()
    assert first != second
    assert trace.is_valid(first)


def test_a_trace_that_is_not_given_is_made_once() -> None:
    with trace.use() as made:
        assert trace.current() == trace.current() == made


def test_another_thread_has_no_part_in_it() -> None:
    with trace.use(A), ThreadPoolExecutor(1) as threads:
        assert threads.submit(trace.current).result() != A


@pytest.mark.parametrize(
    "wrong", ["", "a" * 31, "A" * 32, "0" * 32, f"{A}\n", "name@people.example"]
)
def test_what_is_no_trace_id_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="32 lower-case hexadecimal"), trace.use(wrong):
        pass


@pytest.mark.parametrize("wrong", [None, 7, "0" * 32, "name@people.example"])
def test_a_messages_wrong_trace_id_is_replaced(wrong: object) -> None:
    token = trace.begin(wrong)
    assert trace.is_valid(trace.current())
    trace.end(token)


def test_a_new_one_is_valid_even_if_all_bits_drawn_are_zero() -> None:
    class Zeros(Random):
        def getrandbits(self, k: int) -> int:
            return 0

    entropy.use(Zeros())
    assert trace.is_valid(trace.new())
