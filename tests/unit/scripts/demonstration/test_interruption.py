"""The first Ctrl-C asks, the second orders."""

import os
import signal
from collections.abc import Iterator

import pytest

from scripts.demonstration.interruption import SIGNALS, Interruption


@pytest.fixture(autouse=True)
def _nobody_was_told_to_ignore_hangups() -> Iterator[None]:
    """As nohup would have it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def interruption() -> Iterator[Interruption]:
    before = [signal.getsignal(number) for number in SIGNALS]
    with Interruption() as entered:
        yield entered
    assert [signal.getsignal(number) for number in SIGNALS] == before


def raise_signal(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


def test_before_the_show_the_first_ends_it(interruption: Interruption) -> None:
    with pytest.raises(KeyboardInterrupt):
        raise_signal()


@pytest.mark.parametrize("number", SIGNALS)
def test_in_the_show_the_first_is_a_wish(interruption: Interruption, number: int) -> None:
    interruption.patient = True
    raise_signal(number)
    assert interruption.wished
    with pytest.raises(KeyboardInterrupt):
        raise_signal(number)


def test_who_asked_not_to_hear_of_a_closed_terminal_does_not() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruption() as entered:
            raise_signal(signal.SIGHUP)
            assert not entered.wished
    finally:
        signal.signal(signal.SIGHUP, before)
