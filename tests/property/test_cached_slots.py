"""However refreshes overlap, die or meet an empty Redis: what is not marked stale is right."""

import shutil
import tempfile
from contextlib import suppress
from datetime import timedelta
from functools import cache
from pathlib import Path
from random import Random

from greenlet import getcurrent, greenlet
from hypothesis import Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select

from app import db, schema
from app.adapters.slot_cache import CacheEmptiedError
from app.domain.availability import WeeklyWindow
from app.domain.bookings import BookingRefusedError
from app.models import Booking, StaleAvailability
from app.services import availability, bookings
from app.services.availability import free_slots
from app.services.slot_refresh import refresh
from simulations.marketplace.slot_cache import MemorySlotCache
from tests.builders import NOON, a_service, a_student, an_instructor

INSTRUCTORS = 3
EXAMPLES = 30
STEPS = 30
AT_ONCE = 3
DAYS = 4
NOON_TO_THREE = tuple(WeeklyWindow(weekday, 12 * 60, 15 * 60) for weekday in range(DAYS))
"""Few slots, so that many steps are taken in little time."""


@cache
def migrated() -> Path:
    path = Path(tempfile.mkdtemp(prefix="cached-slots-")) / "migrated.sqlite3"
    engine = db.create_database_engine(f"sqlite:///{path}")
    schema.upgrade(engine)
    engine.dispose()
    return path


def stand_still() -> None:
    getcurrent().parent.switch()


class CachedSlots(RuleBasedStateMachine):
    """Each refresh is a greenlet that stands still before and after each write of the cache."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="cached-slots-"))
        shutil.copy(migrated(), self.folder / "test.sqlite3")
        self.engine = db.create_database_engine(f"sqlite:///{self.folder}/test.sqlite3")
        self.engine_before = db.use(self.engine)
        self.cache = MemorySlotCache(before_write=stand_still, after_write=stand_still)
        self.under_way: list[greenlet] = []

    @initialize()
    def open_the_marketplace(self) -> None:
        with db.transaction() as session:
            teachers = [
                an_instructor(session, time_zone="UTC", windows=NOON_TO_THREE)
                for _ in range(INSTRUCTORS)
            ]
            services = [a_service(session, instructor=teacher) for teacher in teachers]
            self.services = {service.instructor_id: service.id for service in services}
            self.student_id = a_student(session).id
        self.ids = list(self.services)
        self.refresh_alone(full=True)

    @rule(who=st.integers(0, INSTRUCTORS - 1), day=st.integers(0, DAYS), hour=st.integers(0, 2))
    def book(self, who: int, day: int, hour: int) -> None:
        try:
            with db.transaction() as session:
                bookings.book(
                    session,
                    student_id=self.student_id,
                    service_id=self.services[self.ids[who]],
                    starts_at=NOON + timedelta(days=day, hours=hour),
                    now=NOON,
                )
        except BookingRefusedError:
            pass

    @rule(choose=st.randoms(use_true_random=False))
    def cancel(self, choose: Random) -> None:
        with db.transaction() as session:
            ids = list(session.scalars(select(Booking.id).order_by(Booking.id)))
            if ids:
                bookings.cancel(session, choose.choice(ids), now=NOON)

    @rule(who=st.integers(0, INSTRUCTORS - 1), days=st.integers(0, DAYS))
    def change_windows(self, who: int, days: int) -> None:
        windows = NOON_TO_THREE[:days]
        with db.transaction() as session:
            availability.set_weekly_windows(session, self.ids[who], windows, now=NOON)

    @precondition(lambda self: len(self.under_way) < AT_ONCE)
    @rule(full=st.booleans(), page=st.integers(1, INSTRUCTORS))
    def begin_a_refresh(self, full: bool, page: int) -> None:
        run = greenlet(lambda: self.refresh(full=full, page=page))
        self.under_way.append(run)
        self.let_go_on(run)

    @precondition(lambda self: bool(self.under_way))
    @rule(choose=st.randoms(use_true_random=False))
    def a_refresh_goes_on(self, choose: Random) -> None:
        self.let_go_on(choose.choice(self.under_way))

    @precondition(lambda self: bool(self.under_way))
    @rule(choose=st.randoms(use_true_random=False))
    def a_refresh_dies(self, choose: Random) -> None:
        run = choose.choice(self.under_way)
        run.throw()
        self.under_way.remove(run)

    @rule()
    def redis_is_emptied(self) -> None:
        self.cache.lose_everything()

    @invariant()
    def what_is_there_and_not_stale_is_right(self) -> None:
        with db.reading() as session:
            stale = set(
                session.scalars(
                    select(StaleAvailability.instructor_id).where(
                        StaleAvailability.changes > StaleAvailability.cached_changes
                    )
                )
            )
        fresh = [each for each in self.cache.entries if each not in stale]
        assert self.cached(fresh) == self.computed(fresh)

    def let_go_on(self, run: greenlet) -> None:
        run.switch()
        if run.dead:
            self.under_way.remove(run)

    def refresh(self, *, full: bool, page: int) -> None:
        with suppress(CacheEmptiedError):
            refresh(self.cache, clock=lambda: NOON, full=full, page=page)

    def refresh_alone(self, *, full: bool) -> None:
        run = greenlet(lambda: self.refresh(full=full, page=INSTRUCTORS))
        while not run.dead:
            run.switch()

    def cached(self, ids: list[int]) -> dict[int, object]:
        return {each: entry.starts for each, entry in self.cache.read(ids).items()}

    def computed(self, ids: list[int]) -> dict[int, object]:
        with db.reading() as session:
            return {each: free.starts for each, free in free_slots(session, ids, now=NOON).items()}

    def teardown(self) -> None:
        try:
            while self.under_way:
                self.let_go_on(self.under_way[0])
            self.refresh_alone(full=False)
            assert self.cached(self.ids) == self.computed(self.ids)
        finally:
            db.use(self.engine_before)
            self.engine.dispose()
            shutil.rmtree(self.folder)


def test_what_is_cached_is_right_or_marked_stale_whatever_overlaps() -> None:
    run_state_machine_as_test(
        CachedSlots,
        settings=hypothesis_settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            phases=(Phase.reuse, Phase.generate, Phase.shrink),
        ),
    )
