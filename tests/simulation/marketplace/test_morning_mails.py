"""Digests and weekly reports: whoever is owed one gets it, and nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, time, timedelta

import pytest

from app import db, outbox
from app.services.analytics import GENERATE_DAILY
from simulations.marketplace.invariants import BrokenInvariantError, EveryMailArrives
from simulations.marketplace.plan import Plan
from simulations.marketplace.replay import Replay

pytestmark = pytest.mark.timeout(120)  # people live through a day and a morning

HOUR = timedelta(hours=1)
SUNDAY = date(2026, 7, 19)


@pytest.fixture(scope="module")
def monday() -> Iterator[Replay]:
    """Monday, an hour after the mails of the morning.

    Beat comes to work at five to eight: until then nobody needs its 1,900 runs.
    """
    with Replay(Plan(day=SUNDAY, days=2, bookings=20, beats=0, storm=(time(0, 5), 20))) as replay:
        replay.deployment.run_until(replay.start + 26 * HOUR)

        def count_sunday() -> None:
            with db.transaction() as session:
                outbox.enqueue(session, GENERATE_DAILY, SUNDAY.isoformat())

        replay.deployment.call_at(replay.deployment.now, count_sunday)
        replay.deployment.run_until(replay.start + 32 * HOUR - timedelta(minutes=5))
        replay.deployment.start_beat("beat1")
        replay.deployment.run_until(replay.start + 33 * HOUR + timedelta(minutes=1))
        yield replay


def conclusion(replay: Replay) -> str | None:
    invariant = next(each for each in replay.invariants if isinstance(each, EveryMailArrives))
    replay.deployment.loop.stop_for = None
    invariant.conclude()
    stopped = replay.deployment.loop.stop_for
    return stopped.what if isinstance(stopped, BrokenInvariantError) else None


def test_all_that_were_owed_have_arrived(monday: Replay) -> None:
    assert conclusion(monday) is None


@pytest.mark.parametrize("kind", ["digest.20260719", "weekly_report.20260713"])
def test_one_that_is_missing_is_found(monday: Replay, kind: str) -> None:
    accepted = monday.provider.accepted
    key = next(key for key in sorted(accepted) if key.startswith(kind))
    copies = accepted.pop(key)
    told = conclusion(monday)
    accepted[key] = copies
    assert told is not None
    assert "have not arrived" in told
    assert key in told


@pytest.mark.parametrize("kind", ["digest.20260718", "digest.20260720", "weekly_report.20260720"])
def test_one_that_nobody_is_owed_is_found(monday: Replay, kind: str) -> None:
    accepted = monday.provider.accepted
    key = f"{kind}.{monday.people.instructors[0].id}"
    accepted[key] = 1
    told = conclusion(monday)
    del accepted[key]
    assert told is not None
    assert "that nobody was owed" in told
