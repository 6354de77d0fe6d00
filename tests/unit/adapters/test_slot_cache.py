import json
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from app import db
from app.adapters.slot_cache import (
    ENTRY_TTL,
    CachedSlots,
    decode,
    encode,
    slot_cache_from,
)
from app.services.slot_refresh import FULL_EVERY
from app.settings import Settings

ENTRY = CachedSlots(
    instructor_id=7,
    version=12,
    computed_at=datetime(2026, 3, 2, 12, 0, 0, 250_000, tzinfo=UTC),
    time_zone="Europe/Berlin",
    starts={60: [datetime(2026, 3, 2, 13, tzinfo=UTC)], 90: []},
)


def test_an_entry_is_json_that_any_reader_understands() -> None:
    """The format of docs/availability-cache.md."""
    assert json.loads(encode(ENTRY)) == {
        "version": 12,
        "computed_at": "2026-03-02T12:00:00.250000Z",
        "time_zone": "Europe/Berlin",
        "slots": {"60": ["2026-03-02T13:00:00Z"], "90": []},
    }


def test_what_is_read_is_what_was_written() -> None:
    assert decode(7, encode(ENTRY)) == ENTRY


def test_an_entry_outlives_a_full_refresh_that_fails() -> None:
    assert 2 * FULL_EVERY + timedelta(minutes=5) < ENTRY_TTL


def test_the_cache_is_not_asked_inside_a_transaction(database: Engine) -> None:
    with (
        slot_cache_from(Settings()) as cache,
        db.transaction(),
        pytest.raises(db.NetworkInTransactionError),
    ):
        cache.read([1])
