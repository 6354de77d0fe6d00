"""When a worker's clock counts as wrong."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from app.settings import load_settings
from app.tasks.startup import TRY_AGAIN, WrongClockError, check_clock
from tests.fakes import FakeBroker, FakeClock

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
TOLERANCE = timedelta(seconds=load_settings().worker_clock_tolerance_seconds)
A_SECOND = timedelta(seconds=1)
LONG = 10 * TOLERANCE


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    return FakeClock.install(monkeypatch, NOON)


class LateBroker(FakeBroker):
    """Answers with its clock's time, and takes ``before`` and ``after`` to do so."""

    def __init__(self, local: FakeClock, ahead: timedelta, before: timedelta, after: timedelta):
        super().__init__(local)
        self._times = ahead, before, after

    def now(self) -> datetime:
        ahead, before, after = self._times
        self.clock.now += before
        answer = self.clock.now - ahead
        self.clock.now += after
        return answer


@pytest.mark.parametrize("sign", [1, -1])
def test_a_clock_within_the_tolerance_is_right(local: FakeClock, sign: int) -> None:
    check_clock(LateBroker(local, sign * TOLERANCE, timedelta(0), timedelta(0)))


@pytest.mark.parametrize(
    ("ahead", "said"), [(TOLERANCE + A_SECOND, "+11 s"), (-TOLERANCE - A_SECOND, "-11 s")]
)
def test_a_clock_beyond_the_tolerance_is_wrong(
    local: FakeClock, ahead: timedelta, said: str
) -> None:
    with pytest.raises(WrongClockError, match=rf"clock is \{said} off Redis's") as error:
        check_clock(LateBroker(local, ahead, timedelta(0), timedelta(0)))
    assert error.value.status == TRY_AGAIN


@pytest.mark.parametrize(
    "stall", [lambda: (LONG, timedelta(0)), lambda: (timedelta(0), LONG)], ids=["before", "after"]
)
def test_a_stall_is_not_taken_for_a_wrong_clock(
    local: FakeClock, stall: Callable[[], tuple[timedelta, timedelta]]
) -> None:
    """A machine that paused, or a body that held the interpreter, around Redis's answer."""
    check_clock(LateBroker(local, timedelta(0), *stall()))


def test_a_broker_that_is_away_says_nothing_about_the_clock(local: FakeClock) -> None:
    check_clock(FakeBroker(local, down=True))
