"""Ids of outbox entries."""

from datetime import datetime
from random import Random
from uuid import UUID


def uuid7(now: datetime, rng: Random) -> str:
    """A UUID version 7 (RFC 9562, section 5.7): milliseconds of ``now``, then random bits.

    Ids made later sort later, which keeps the primary key's index compact.
    """
    milliseconds = int(now.timestamp() * 1000)
    value = milliseconds << 80 | 0x7 << 76 | rng.getrandbits(12) << 64 | 0b10 << 62
    return str(UUID(int=value | rng.getrandbits(62)))
