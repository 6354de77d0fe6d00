"""Keeping the cached slots of instructors as new as the tables.

Who changes bookings or windows raises the instructor's ``changes`` in the same transaction.
Here that number is read before the slots are computed, so each change that it counts is in
them; it goes into the cache as the entry's version, where a higher one is never replaced by
a lower; and only when the entry is there, the instructor is marked as cached up to it.
Whatever ends this in between leaves the instructor stale, to be computed again. Where Redis
loses its data meanwhile, and the versions with it, the refresh ends, and the next is full.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import func, select, tuple_, update

from app import db
from app.adapters.slot_cache import CachedSlots, SlotCache
from app.models import Role, StaleAvailability, User
from app.services.availability import free_slots

FULL_EVERY = timedelta(minutes=58)
"""The 14 days move on, a restarted Redis is empty, a zone or a service is changed. Less than
an hour, for a run may begin a little sooner after its due instant than the one before."""

PAGE = 100
"""Instructors in memory at once, and in one round trip."""


@dataclass(frozen=True)
class RefreshSummary:
    full: bool
    written: int
    superseded: int
    """Entries that somebody wrote from newer rows meanwhile."""
    deleted: int
    """Entries of instructors who are gone."""


class _Version(NamedTuple):
    instructor_id: int
    changes: int
    cached_changes: int


def refresh(
    cache: SlotCache, *, clock: Callable[[], datetime], full: bool = False, page: int = PAGE
) -> RefreshSummary:
    """Compute and write the slots of those instructors that changed, or of all.

    Of all with ``full``, and where the last full refresh began ``FULL_EVERY`` ago or the
    cache knows of none. Any number of these may run at once. Has transactions of its own,
    and none is open while the cache is called. Raises ``CacheUnavailableError``.
    """
    began = clock()
    epoch = cache.epoch()
    full = full or _is_full_due(cache.fully_refreshed_at(), now=began)
    written = superseded = after = 0
    while versions := _next_versions(after=after, full=full, limit=page):
        entries = _compute(versions, now=clock())
        accepted = cache.write(entries, epoch=epoch)
        _mark_cached([each for each in versions if each.instructor_id in accepted])
        written += len(accepted)
        superseded += len(entries) - len(accepted)
        after = versions[-1].instructor_id
    deleted = _delete_gone(cache) if full else 0
    cache.stamp(began, full=full, epoch=epoch)
    return RefreshSummary(full=full, written=written, superseded=superseded, deleted=deleted)


def _is_full_due(last: datetime | None, *, now: datetime) -> bool:
    # One in the future is of a clock that was wrong.
    return last is None or not timedelta(0) <= now - last < FULL_EVERY


def _next_versions(*, after: int, full: bool, limit: int) -> list[_Version]:
    changes = func.coalesce(StaleAvailability.changes, 0)
    cached_changes = func.coalesce(StaleAvailability.cached_changes, 0)
    chosen = (
        select(User.id, changes, cached_changes)
        .join(StaleAvailability, StaleAvailability.instructor_id == User.id, isouter=full)
        .where(User.role == Role.INSTRUCTOR, User.id > after)
        .order_by(User.id)
        .limit(limit)
    )
    if not full:
        chosen = chosen.where(StaleAvailability.changes > StaleAvailability.cached_changes)
    with db.reading() as session:
        return [_Version(*row) for row in session.execute(chosen)]


def _compute(versions: Sequence[_Version], *, now: datetime) -> list[CachedSlots]:
    changes = {each.instructor_id: each.changes for each in versions}
    with db.reading() as session:
        found = free_slots(session, list(changes), now=now)
    return [
        CachedSlots(
            instructor_id=instructor_id,
            version=changes[instructor_id],
            computed_at=now,
            time_zone=free.time_zone,
            starts=free.starts,
        )
        for instructor_id, free in found.items()
    ]


def _mark_cached(versions: Sequence[_Version]) -> None:
    # Who has changed since has another number by now, and stays stale.
    stale = [
        (each.instructor_id, each.changes)
        for each in versions
        if each.changes > each.cached_changes
    ]
    if not stale:
        return
    with db.transaction() as session:
        session.execute(
            update(StaleAvailability)
            .where(tuple_(StaleAvailability.instructor_id, StaleAvailability.changes).in_(stale))
            .values(cached_changes=StaleAvailability.changes)
            .execution_options(synchronize_session=False)
        )


def _delete_gone(cache: SlotCache) -> int:
    deleted = 0
    for ids in cache.instructor_ids():
        with db.reading() as session:
            known = session.scalars(
                select(User.id).where(User.id.in_(ids), User.role == Role.INSTRUCTOR)
            ).all()
        deleted += cache.delete(set(ids) - set(known))
    return deleted
