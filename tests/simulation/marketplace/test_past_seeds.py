"""Days that once broke, each with the fewest faults and as early as it still breaks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import time, timedelta

import pytest

from simulations.engine.faults import Fault
from simulations.marketplace.plan import Plan
from simulations.marketplace.replay import Replay

pytestmark = pytest.mark.timeout(120)  # hours of a day, of which each minute asks a database


@dataclass(frozen=True)
class Past:
    """A day that once broke."""

    seed: int
    """Of the day of chaos that showed it."""
    found: str
    """What was wrong."""
    plan: Plan
    lasts: timedelta
    """Until the calm begins."""
    came_up: str
    """What must happen in it, or it shows nothing."""


PAST = (
    Past(
        seed=1011,
        found="the pool of connections that all processes share came to its end",
        plan=Plan(
            bookings=20,
            storm=(time(0, 4), 60),
            faults=(Fault("database-locked", time(0, 5), timedelta(minutes=3)),),
        ),
        lasts=timedelta(minutes=10),
        came_up="a person told to try again",
    ),
)


@pytest.mark.parametrize("past", PAST, ids=lambda past: f"seed {past.seed}")
def test_a_day_that_once_broke_holds(past: Past) -> None:
    with Replay(past.plan) as replay:
        replay.end = replay.start + past.lasts
        outcome = replay.run()
    assert outcome.broken is None
    assert outcome.sometimes[past.came_up] > 0
