"""How long a full refresh of the cached slots takes, beside one instructor at a time.

    python -m scripts.bench_slots --instructors 1000 --runs 3

Both compute the same entries with the same functions and write them to the same Redis, in
turns, on SQLite; they differ in how many statements and round trips they need. Prints the
median of the runs, and what a refresh after a single change takes. Exit status 0 only where
all left the same entries.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from statistics import median
from time import perf_counter

from sqlalchemy import select

from app import clock, db, schema
from app.adapters.slot_cache import CachedSlots, SlotCache, slot_cache_from
from app.models import AvailabilityWindow, Booking, BookingStatus, Role, Service, User
from app.services.availability import free_slots, mark_stale
from app.services.slot_refresh import PAGE, refresh
from app.settings import Settings
from scripts.arguments import command, positive, run_command
from scripts.demonstration.people import ZONES
from scripts.live.redis_server import RedisServer

STUDENTS = 500
LESSONS_EACH = 20
WORKING_DAYS, BEGIN_MINUTE, END_MINUTE = 5, 9 * 60, 17 * 60
LENGTHS = (45, 60)


def main() -> int:
    parser = command("bench_slots", __doc__)
    parser.add_argument("--instructors", type=positive, default=1000, help="how many (1000)")
    parser.add_argument("--runs", type=positive, default=3, help="of each, in turns (3)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, _database(Path(folder)), RedisServer() as redis:
        now = clock.utcnow()
        _move_in(options.instructors, now=now)
        with slot_cache_from(Settings(cache_url=redis.url)) as cache:
            return _compare(cache, now=now, runs=options.runs, instructors=options.instructors)


def _compare(cache: SlotCache, *, now: datetime, runs: int, instructors: int) -> int:
    paged, single, after_change = f"in pages of {PAGE}", "one at a time", "after one change"
    seconds: dict[str, list[float]] = {paged: [], single: [], after_change: []}
    left = []
    for _ in range(runs):
        seconds[paged].append(_timed(lambda: refresh(cache, clock=lambda: now, full=True)))
        left.append(_entries(cache))
        seconds[single].append(_timed(lambda: _one_at_a_time(cache, now=now)))
        left.append(_entries(cache))
        with db.transaction() as session:
            mark_stale(session, max(left[0]), now=now)
        seconds[after_change].append(_timed(lambda: refresh(cache, clock=lambda: now)))
    print(f"refreshing the slots of {instructors} instructors, median of {runs} runs")
    for name, times in seconds.items():
        print(f"  {name:<18}{median(times):>8.3f} s")
    ratio = median(seconds[single]) / median(seconds[paged])
    print(f"  {'ratio':<18}{ratio:>8.1f} times faster in pages than one at a time")
    same = all(entries == left[0] for entries in left)
    print(f"  {'entries':<18}{'the same' if same else 'NOT the same'}, {len(left[0])} of them")
    return 0 if same else 1


def _one_at_a_time(cache: SlotCache, *, now: datetime) -> None:
    epoch = cache.epoch()
    with db.reading() as session:
        ids = session.scalars(select(User.id).where(User.role == Role.INSTRUCTOR)).all()
    for instructor_id in ids:
        with db.reading() as session:
            found = free_slots(session, [instructor_id], now=now)[instructor_id]
        entry = CachedSlots(instructor_id, 0, now, found.time_zone, found.starts)
        cache.write([entry], epoch=epoch)


def _timed(act: Callable[[], object]) -> float:
    began = perf_counter()
    act()
    return perf_counter() - began


def _entries(cache: SlotCache) -> dict[int, object]:
    ids = sorted(each for page in cache.instructor_ids() for each in page)
    return {each: entry.starts for each, entry in cache.read(ids).items()}


@contextmanager
def _database(folder: Path) -> Iterator[None]:
    engine = db.create_database_engine(f"sqlite:///{folder}/bench.sqlite3")
    before = db.use(engine)
    try:
        schema.upgrade(engine)
        yield
    finally:
        db.use(before)
        engine.dispose()


def _move_in(instructors: int, *, now: datetime) -> None:
    """Instructors of eight zones who teach on weekdays, and lessons in the next weeks."""
    rng = Random(1)
    with db.transaction() as session:
        people = [
            User(
                role=role,
                name=f"{role.value} {number}",
                email=f"{role.value}{number}@people.example",
                time_zone=rng.choice(ZONES),
            )
            for role, many in ((Role.INSTRUCTOR, instructors), (Role.STUDENT, STUDENTS))
            for number in range(many)
        ]
        session.add_all(people)
        session.flush()
        teachers, students = people[:instructors], people[instructors:]
        session.add_all(
            AvailabilityWindow(
                instructor_id=teacher.id,
                weekday=weekday,
                starts_minute=BEGIN_MINUTE,
                ends_minute=END_MINUTE,
            )
            for teacher in teachers
            for weekday in range(WORKING_DAYS)
        )
        session.add_all(
            Service(instructor_id=teacher.id, name="Guitar", minutes=minutes, price_cents=4_500)
            for teacher in teachers
            for minutes in LENGTHS
        )
        session.flush()
        service_of = dict(session.execute(select(Service.instructor_id, Service.id)).all())
        hour = now.replace(minute=0, second=0, microsecond=0)
        # Each number's lessons are at hours that no other number of the same student has.
        session.add_all(
            Booking(
                student_id=students[number % STUDENTS].id,
                instructor_id=teacher.id,
                service_id=service_of[teacher.id],
                starts_at=hour + timedelta(hours=_hour(number, lesson)),
                ends_at=hour + timedelta(hours=_hour(number, lesson) + 1),
                status=BookingStatus.CONFIRMED,
                price_cents=4_500,
                created_at=now,
            )
            for number, teacher in enumerate(teachers)
            for lesson in range(LESSONS_EACH)
        )


def _hour(number: int, lesson: int) -> int:
    return 1 + lesson * 17 + (number // STUDENTS) * 17 * LESSONS_EACH


if __name__ == "__main__":
    sys.exit(run_command(main))
