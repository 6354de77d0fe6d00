"""The cache of free slots in memory, which keeps what Redis would keep."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from app import db
from app.adapters.slot_cache import (
    SCAN_COUNT,
    CachedSlots,
    CacheEmptiedError,
    CacheUnavailableError,
)


def nothing() -> None:
    pass


@dataclass
class MemorySlotCache:
    """``tests/integration/adapters/test_slot_cache.py`` holds it against the real one."""

    entries: dict[int, CachedSlots] = field(default_factory=dict)
    stamps: dict[str, datetime] = field(default_factory=dict)
    emptied: int = 0
    down: bool = False
    before_write: Callable[[], None] = nothing
    after_write: Callable[[], None] = nothing

    def epoch(self) -> str:
        self._answer()
        return str(self.emptied)

    def write(self, entries: Sequence[CachedSlots], *, epoch: str) -> set[int]:
        self._answer()
        self.before_write()
        self._check(epoch)
        there = self.entries
        written = {
            entry.instructor_id: entry
            for entry in entries
            if entry.instructor_id not in there
            or there[entry.instructor_id].version <= entry.version
        }
        self.entries.update(written)
        self.after_write()
        return set(written)

    def read(self, instructor_ids: Sequence[int]) -> dict[int, CachedSlots]:
        self._answer()
        return {each: self.entries[each] for each in instructor_ids if each in self.entries}

    def instructor_ids(self) -> Iterator[list[int]]:
        self._answer()
        there = list(self.entries)
        for start in range(0, len(there), SCAN_COUNT):
            yield there[start : start + SCAN_COUNT]

    def delete(self, instructor_ids: Collection[int]) -> int:
        self._answer()
        return len([self.entries.pop(each) for each in instructor_ids if each in self.entries])

    def fully_refreshed_at(self) -> datetime | None:
        self._answer()
        return self.stamps.get("full")

    def stamp(self, refreshed_at: datetime, *, full: bool, epoch: str) -> None:
        self._answer()
        self._check(epoch)
        for name in ("any", "full") if full else ("any",):
            self.stamps[name] = refreshed_at

    def lose_everything(self) -> None:
        self.entries.clear()
        self.stamps.clear()
        self.emptied += 1

    def _check(self, epoch: str) -> None:
        if epoch != str(self.emptied):
            raise CacheEmptiedError("Redis was emptied during a refresh")

    def _answer(self) -> None:
        db.refuse_network_in_transaction()
        if self.down:
            raise CacheUnavailableError("Redis: connection refused")
