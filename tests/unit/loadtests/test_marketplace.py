"""Made-up people do what people do, and leave nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from random import Random

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, event, func, select
from sqlalchemy.orm import Session

from app import db
from app.models import Base, Booking, BookingStatus, OutboxEntry, OutboxState
from app.services.bookings import SEND_CANCELLATION, SEND_CONFIRMATION
from app.services.notifications import NOTIFY_BOOKING
from app.services.password_resets import SEND_PASSWORD_RESET
from app.settings import Settings
from app.tasks import email
from app.tasks.testing import assert_enqueued, drain, without_broker
from loadtests import _made_up_people, _work
from loadtests._errors import LoadTestError
from loadtests._ledger import Ledger
from loadtests._marketplace import Marketplace
from tests.builders import a_lesson
from tests.fakes import FakeClock, FakeSlotCache
from tests.mailers import FakeMailer

TRACE = "0123456789abcdef0123456789abcdef"
SETTINGS = Settings(redis_url=SecretStr("redis://nowhere/0"))


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> FakeSlotCache:
    made = FakeSlotCache()

    @contextmanager
    def slot_cache_from(settings: Settings) -> Iterator[FakeSlotCache]:
        assert settings is SETTINGS
        yield made

    monkeypatch.setattr(_made_up_people, "slot_cache_from", slot_cache_from)
    return made


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(TRACE, lambda *_: None)


@pytest.fixture
def marketplace(
    database: Engine, cache: FakeSlotCache, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Marketplace]:
    FakeClock.install(monkeypatch, datetime(2026, 7, 1, 12, tzinfo=UTC))
    with without_broker():
        yield Marketplace(SETTINGS, ledger, rng=Random(7))


def rows() -> dict[str, int]:
    with db.reading() as session:
        return {
            table.name: session.scalar(select(func.count()).select_from(table)) or 0
            for table in Base.metadata.sorted_tables
        }


def rows_of_others() -> dict[str, int]:
    """As ``rows``, without the people who have just moved in and what they have."""
    found = rows()
    people = _made_up_people.STUDENTS + _made_up_people.INSTRUCTORS
    found["users"] -= people
    found["services"] -= _made_up_people.INSTRUCTORS
    found["availability_windows"] -= 7 * _made_up_people.INSTRUCTORS
    return found


def status_of_bookings() -> list[BookingStatus]:
    with db.reading() as session:
        return list(session.scalars(select(Booking.status).order_by(Booking.id)))


def test_a_booking_is_confirmed_and_told_to_both_sides(
    marketplace: Marketplace, database: Engine
) -> None:
    marketplace.book()
    assert status_of_bookings() == [BookingStatus.CONFIRMED]
    for task in (SEND_CONFIRMATION, NOTIFY_BOOKING, _work.COMPLETE_FINISHED.task):
        assert_enqueued(database, task)


def test_what_was_booked_first_is_cancelled_first(
    marketplace: Marketplace, database: Engine
) -> None:
    marketplace.book()
    marketplace.book()
    marketplace.cancel()
    assert status_of_bookings() == [BookingStatus.CANCELLED, BookingStatus.CONFIRMED]
    assert_enqueued(database, SEND_CANCELLATION)
    assert_enqueued(database, _work.EXPIRE_PENDING.task)


def test_who_has_nothing_to_cancel_books_before(marketplace: Marketplace) -> None:
    marketplace.cancel()
    assert status_of_bookings() == [BookingStatus.CANCELLED]


def test_a_forgotten_password_is_one_of_these_people(
    marketplace: Marketplace, database: Engine
) -> None:
    marketplace.forget_password()
    assert_enqueued(database, SEND_PASSWORD_RESET)


def test_all_planned_work_has_the_tests_trace_and_is_expected(
    marketplace: Marketplace, ledger: Ledger
) -> None:
    marketplace.book()
    marketplace.forget_password()
    ids = marketplace.plan([_work.CACHE, _work.MAINTENANCE])
    with db.reading() as session:
        traces = set(session.scalars(select(OutboxEntry.trace_id)))
    assert traces == {TRACE}
    assert ledger.still_waiting(ids) == set(ids)


def test_work_whose_transaction_failed_is_not_waited_for(
    marketplace: Marketplace, ledger: Ledger
) -> None:
    def fail(session: Session) -> None:
        raise KeyboardInterrupt

    event.listen(Session, "before_commit", fail)
    try:
        with pytest.raises(KeyboardInterrupt):
            marketplace.plan([_work.CACHE])
    finally:
        event.remove(Session, "before_commit", fail)
    assert not ledger.waiting


def test_withdrawn_work_is_not_published_any_more(marketplace: Marketplace) -> None:
    marketplace.book()
    marketplace.withdraw()
    with db.reading() as session:
        assert set(session.scalars(select(OutboxEntry.state))) == {OutboxState.CANCELLED}


def test_who_moves_out_leaves_nothing_and_touches_nobody_else(
    marketplace: Marketplace, cache: FakeSlotCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(email, "mailer_from", lambda settings: FakeMailer())
    with db.transaction() as session:
        a_lesson(session, starts_at=datetime(2026, 7, 2, 9, tzinfo=UTC))
    others = rows_of_others()
    for _ in range(3):
        marketplace.book()
    marketplace.cancel()
    marketplace.forget_password()
    marketplace.plan([_work.ANALYTICS, _work.MAINTENANCE])
    drain()
    after = rows()
    assert all(after[name] for name in ("email_messages", "notifications", "daily_metrics"))
    assert set(cache.deleted) == set()
    marketplace.move_out()
    assert rows() == others
    assert len(cache.deleted) == _made_up_people.INSTRUCTORS


def test_slots_that_stay_cached_are_told_when_all_else_is_deleted(
    marketplace: Marketplace, cache: FakeSlotCache
) -> None:
    marketplace.book()
    cache.down = True
    with pytest.raises(LoadTestError, match="free slots of made-up instructors stay cached"):
        marketplace.move_out()
    assert sum(rows().values()) == 0
