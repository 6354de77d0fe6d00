"""Any marketplace's day, counted in SQL, is what a person would count."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from app import db, schema
from app.domain.calendar import day_span
from app.models import (
    Booking,
    BookingStatus,
    EmailKind,
    EmailMessage,
    EmailState,
    OutboxEntry,
    OutboxState,
)
from app.services.day_metrics import compute_day
from tests.builders import a_service, a_student, an_instructor
from tests.metrics import recounted, stored

MICROSECOND = timedelta(microseconds=1)
HOUR = timedelta(hours=1)
NOW = datetime(2030, 1, 1, tzinfo=UTC)

DAYS = (
    ("US/Eastern", date(2026, 7, 1)),
    ("US/Eastern", date(2026, 3, 8)),  # has a missing hour
    ("US/Eastern", date(2026, 11, 1)),  # has an hour twice
    ("America/Havana", date(2026, 11, 1)),  # has the hour after midnight twice
    ("Africa/Cairo", date(2026, 4, 24)),  # has no midnight
    ("Australia/Lord_Howe", date(2026, 4, 5)),  # has half an hour twice
    ("Pacific/Apia", date(2011, 12, 30)),  # was left out
)
SERVICES, STUDENTS = 3, 4
"""Two of the services are of one instructor."""

INSTANT_OF = {
    BookingStatus.COMPLETED: "completed_at",
    BookingStatus.CANCELLED: "cancelled_at",
    BookingStatus.NO_SHOW: "no_show_at",
    BookingStatus.CONFIRMED: "confirmed_at",
}


def instants_around(zone: str, day: date) -> st.SearchStrategy[datetime]:
    """Mostly the edges of the day, and the hours in which its clocks are changed."""
    start, end = day_span(day, ZoneInfo(zone))
    edges = [edge + step for edge in (start, end) for step in (-MICROSECOND, 0 * HOUR, MICROSECOND)]
    anywhere = st.floats(-0.2, 1.2).map(lambda share: start + share * max(end - start, HOUR))
    first_hours = st.integers(0, 4 * 60).map(lambda minutes: start + timedelta(minutes=minutes))
    return st.one_of(st.sampled_from(edges), first_hours, anywhere)


@st.composite
def marketplaces(draw: st.DrawFn, zone: str, day: date) -> dict[str, list[Any]]:
    instants = instants_around(zone, day)
    bookings = st.tuples(
        st.integers(0, SERVICES - 1),
        st.integers(0, STUDENTS - 1),
        st.sampled_from(BookingStatus),
        instants,  # starts
        instants,  # created
        instants,  # whatever made its status
        st.integers(0, 10_000),
    )
    finished = st.tuples(st.sampled_from([OutboxState.DONE, OutboxState.DEAD]), instants)
    maybe = st.none() | instants
    return {
        # Nobody has two lessons that begin together.
        "bookings": draw(st.lists(bookings, max_size=12, unique_by=lambda booking: booking[3])),
        "mails": draw(st.lists(st.tuples(maybe, maybe), max_size=4)),
        "work": draw(st.lists(finished, max_size=4)),
    }


def open_marketplace(session: Session, drawn: dict[str, list[Any]]) -> None:
    one, other = an_instructor(session), an_instructor(session)
    services = [a_service(session, instructor=teacher) for teacher in (one, one, other)]
    students = [a_student(session) for _ in range(STUDENTS)]
    for service, student, status, starts_at, created_at, then, price in drawn["bookings"]:
        booking = Booking(
            student_id=students[student].id,
            instructor_id=services[service].instructor_id,
            service_id=services[service].id,
            starts_at=starts_at,
            ends_at=starts_at + MICROSECOND,
            status=status,
            price_cents=price,
            created_at=created_at,
        )
        if status in INSTANT_OF:
            setattr(booking, INSTANT_OF[status], then)
        session.add(booking)
    for number, (sent_at, failed_at) in enumerate(drawn["mails"]):
        session.add(
            EmailMessage(
                kind=EmailKind.DIGEST,
                subject_id=number,
                recipient_id=students[0].id,
                state=EmailState.SENT if sent_at else EmailState.QUEUED,
                created_at=NOW,
                sent_at=sent_at,
                failed_at=failed_at,
            )
        )
    for number, (state, finished_at) in enumerate(drawn["work"]):
        session.add(
            OutboxEntry(
                id=f"work-{number}",
                task="app.tasks.email.deliver",
                queue="email",
                priority=4,
                state=state,
                created_at=NOW,
                due_at=NOW,
                finished_at=finished_at,
            )
        )
    session.flush()


@pytest.fixture(scope="module")
def marketplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Opens a transaction on an empty database, of which nothing is left."""
    folder = tmp_path_factory.mktemp("day-metrics")
    engine = db.create_database_engine(f"sqlite:///{folder}/test.sqlite3")
    schema.upgrade(engine)

    @contextmanager
    def opened() -> Iterator[Session]:
        with Session(engine) as session:
            yield session
            session.rollback()

    yield opened
    engine.dispose()


@pytest.mark.parametrize(("zone", "day"), DAYS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_day_in_sql_is_the_day_counted_by_hand(
    marketplace: Any, zone: str, day: date, data: st.DataObject
) -> None:
    with marketplace() as session:
        open_marketplace(session, data.draw(marketplaces(zone, day)))
        compute_day(session, day, zone=ZoneInfo(zone), now=NOW)
        expected = recounted(session, day, ZoneInfo(zone))
        assert stored(session, day) == expected
        compute_day(session, day, zone=ZoneInfo(zone), now=NOW)
        assert stored(session, day) == expected


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_every_booking_is_created_on_one_day(marketplace: Any, data: st.DataObject) -> None:
    """The days around a change share nothing and leave nothing out."""
    zone, day = data.draw(st.sampled_from(DAYS))
    with marketplace() as session:
        drawn = data.draw(marketplaces(zone, day))
        open_marketplace(session, drawn)
        days = [day + timedelta(days=number) for number in range(-2, 4)]
        for one in days:
            compute_day(session, one, zone=ZoneInfo(zone), now=NOW)
        created = sum(stored(session, one)[0]["bookings_created"] for one in days)
        assert created == len(drawn["bookings"])
