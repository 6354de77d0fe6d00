"""Until when a beat's ticks would do nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import Engine, update

from app import db, outbox
from app.models import BeatEntry, OutboxEntry
from app.tasks import celery_app, timetable
from simulations.marketplace.seams import QuietBeat
from tests.database import on_sqlite
from tests.fakes import FakeClock

pytestmark = on_sqlite
NOW = datetime(2026, 7, 15, 12, 0, 10, tzinfo=UTC)
NEXT_MINUTE = datetime(2026, 7, 15, 12, 1, tzinfo=UTC)


class Marketplace:
    """As much of a replay as is asked: its clock, its broker, its database."""

    def __init__(self) -> None:
        self.broker = SimpleNamespace(down=False)
        self.beats: dict[str, SimpleNamespace] = {}
        self.database = SimpleNamespace(locked=False, commits=0)
        self.now = NOW
        self._quiet = QuietBeat(lambda: cast(Any, self), cast(Any, self.database))

    def quiet_until(self) -> datetime | None:
        self.database.commits += 1
        return self._quiet()


@pytest.fixture
def marketplace(database: Engine, monkeypatch: pytest.MonkeyPatch) -> Marketplace:
    FakeClock.install(monkeypatch, NOW)
    with db.transaction() as session:
        session.add_all(
            BeatEntry(name=name, schedule_hash="x", last_due=NOW)
            for name in timetable.entries_of(celery_app)
        )
    return Marketplace()


def plan(*, at: datetime | None = None) -> str:
    with db.transaction() as session:
        return outbox.enqueue(session, "app.tasks.cache.update_availability", at=at)


def test_where_nothing_waits_it_is_the_next_due_instant(marketplace: Marketplace) -> None:
    assert marketplace.quiet_until() == NEXT_MINUTE, "of the health check"


def test_a_message_with_the_broker_is_looked_after_at_every_tick(marketplace: Marketplace) -> None:
    entry_id = plan()
    with db.transaction() as session:
        session.execute(
            update(OutboxEntry).where(OutboxEntry.id == entry_id).values(published_at=NOW)
        )
    assert marketplace.quiet_until() == NOW


def test_a_row_that_is_due_before_any_entry_ends_it(marketplace: Marketplace) -> None:
    plan(at=NOW + timedelta(seconds=20))
    assert marketplace.quiet_until() == NOW + timedelta(seconds=20)


def test_an_entry_that_no_beat_has_seen_is_not_waited_with(marketplace: Marketplace) -> None:
    with db.transaction() as session:
        session.delete(session.get_one(BeatEntry, "health-check"))
    assert marketplace.quiet_until() == NOW


def test_a_beat_that_is_ahead_has_it_due_so_much_earlier(marketplace: Marketplace) -> None:
    marketplace.beats["beat1"] = SimpleNamespace(clock_error=timedelta(seconds=1))
    assert marketplace.quiet_until() == NEXT_MINUTE - timedelta(seconds=1)


@pytest.mark.parametrize("away", ["broker", "database"])
def test_where_broker_or_database_is_away_each_tick_tries(
    marketplace: Marketplace, away: str
) -> None:
    if away == "broker":
        marketplace.broker.down = True
    else:
        marketplace.database.locked = True
    assert marketplace.quiet_until() == NOW
