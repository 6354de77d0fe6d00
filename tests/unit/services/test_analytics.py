"""Which day is counted, what a second count leaves, and what follows it."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine, delete, select
from sqlalchemy.orm import Session

from app.domain.calendar import DAY, day_start
from app.domain.days import WrongDayError
from app.models import (
    Booking,
    BookingStatus,
    DailyMetrics,
    EmailMessage,
    EmailState,
    OutboxEntry,
    OutboxState,
)
from app.services import analytics
from app.services.analytics import DIGESTS_FOR, MOST_DAYS, REPORTS_FOR
from app.services.day_metrics import compute_day
from app.settings import Settings
from tests.builders import a_lesson, a_mail, planned
from tests.fakes import FakeClock
from tests.metrics import NOTHING, stored
from tests.query_plans import plans_of

EASTERN = ZoneInfo("US/Eastern")
SATURDAY, SUNDAY, MONDAY = date(2026, 2, 28), date(2026, 3, 1), date(2026, 3, 2)
MICROSECOND = timedelta(microseconds=1)
HOUR = timedelta(hours=1)


def at(day: date, hour: int) -> datetime:
    """An hour of a day in the marketplace's zone."""
    return datetime(day.year, day.month, day.day, hour, tzinfo=EASTERN).astimezone(UTC)


TWO_O_CLOCK = at(MONDAY, 2)
"""When Sunday is counted."""


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    return FakeClock.install(monkeypatch, TWO_O_CLOCK)


def a_busy_sunday(session: Session) -> Booking:
    lesson = a_lesson(session, starts_at=at(SUNDAY, 12), status=BookingStatus.COMPLETED)
    lesson.completed_at = at(SUNDAY, 13)
    mail = a_mail(session, about=lesson, state=EmailState.SENT)
    mail.sent_at = at(SUNDAY, 9)
    session.add(
        OutboxEntry(
            id="work",
            task="app.tasks.email.deliver",
            queue="email",
            priority=4,
            state=OutboxState.DONE,
            created_at=at(SUNDAY, 9),
            due_at=at(SUNDAY, 9),
            finished_at=at(SUNDAY, 9),
        )
    )
    session.flush()
    return lesson


def count_sunday(session: Session, now: datetime = TWO_O_CLOCK) -> None:
    compute_day(session, SUNDAY, zone=EASTERN, now=now)


def test_a_day_without_anything_has_a_row_of_zeros_and_no_others(session: Session) -> None:
    count_sunday(session)
    daily, services, instructors = stored(session, SUNDAY)
    assert set(daily.values()) == {0}
    assert (services, instructors) == ({}, {})


def test_a_day_counts_for_its_service_and_its_instructor(session: Session) -> None:
    lesson = a_busy_sunday(session)
    count_sunday(session)
    daily, services, instructors = stored(session, SUNDAY)
    figures = NOTHING | {
        "bookings_completed": 1,
        "revenue_cents": lesson.price_cents,
        "active_students": 1,
    }
    others = {"mails_failed": 0, "tasks_done": 1, "tasks_dead": 0}
    assert daily == figures | {"active_instructors": 1, "mails_sent": 1} | others
    assert (services, instructors) == (
        {lesson.service_id: figures},
        {lesson.instructor_id: figures},
    )


@pytest.mark.parametrize(
    ("instant", "counts"),
    [
        pytest.param(at(SUNDAY, 0) - MICROSECOND, 0, id="just before"),
        pytest.param(at(SUNDAY, 0), 1, id="its first moment"),
        pytest.param(at(MONDAY, 0) - MICROSECOND, 1, id="its last moment"),
        pytest.param(at(MONDAY, 0), 0, id="just after"),
    ],
)
def test_a_day_is_counted_from_its_first_moment_to_its_last(
    session: Session, instant: datetime, counts: int
) -> None:
    lesson = a_lesson(session, starts_at=instant)
    lesson.created_at = lesson.cancelled_at = lesson.no_show_at = lesson.completed_at = instant
    a_mail(session, about=lesson, state=EmailState.FAILED).failed_at = instant
    count_sunday(session)
    daily, services, instructors = stored(session, SUNDAY)
    price = lesson.price_cents
    assert daily.pop("revenue_cents") == counts * price
    assert {daily.pop("tasks_done"), daily.pop("tasks_dead"), daily.pop("mails_sent")} == {0}
    assert set(daily.values()) == {counts}
    assert (len(services), len(instructors)) == (counts, counts)


def test_a_person_with_two_lessons_is_one_active_person(session: Session) -> None:
    first = a_lesson(session, starts_at=at(SUNDAY, 12))
    for hour in (14, 16):
        a_lesson(session, starts_at=at(SUNDAY, hour), student=first.student, service=first.service)
    count_sunday(session)
    daily, services, _instructors = stored(session, SUNDAY)
    assert (daily["active_students"], daily["active_instructors"]) == (1, 1)
    assert services[first.service_id]["active_students"] == 1


@pytest.mark.parametrize("status", [BookingStatus.PENDING, BookingStatus.CANCELLED])
def test_a_lesson_that_did_not_take_place_makes_nobody_active(
    session: Session, status: BookingStatus
) -> None:
    a_lesson(session, starts_at=at(SUNDAY, 12), status=status)
    count_sunday(session)
    assert stored(session, SUNDAY)[0]["active_students"] == 0


def test_a_second_count_changes_only_when_it_was_counted(session: Session) -> None:
    a_busy_sunday(session)
    count_sunday(session)
    before = stored(session, SUNDAY)
    count_sunday(session, TWO_O_CLOCK + HOUR)
    assert stored(session, SUNDAY) == before
    computed_at = session.scalars(select(DailyMetrics.computed_at)).all()
    assert computed_at == [TWO_O_CLOCK + HOUR]


def test_what_a_day_no_longer_has_is_gone_after_a_second_count(session: Session) -> None:
    lesson = a_busy_sunday(session)
    count_sunday(session)
    compute_day(session, SATURDAY, zone=EASTERN, now=TWO_O_CLOCK)
    session.execute(delete(Booking).where(Booking.id == lesson.id))
    count_sunday(session)
    daily, services, instructors = stored(session, SUNDAY)
    assert (daily["bookings_completed"], daily["revenue_cents"]) == (0, 0)
    assert (services, instructors) == ({}, {})


def test_a_count_leaves_other_days_alone(session: Session) -> None:
    a_busy_sunday(session)
    count_sunday(session)
    before = stored(session, SUNDAY)
    session.execute(delete(Booking))
    compute_day(session, SATURDAY, zone=EASTERN, now=TWO_O_CLOCK)
    assert stored(session, SUNDAY) == before


def test_figures_of_rows_that_cleanup_deleted_are_kept(session: Session) -> None:
    a_busy_sunday(session)
    count_sunday(session)
    before = stored(session, SUNDAY)
    session.execute(delete(OutboxEntry))
    session.execute(delete(EmailMessage))
    count_sunday(session)
    assert stored(session, SUNDAY) == before


def test_each_event_is_found_by_an_index(database: Engine, session: Session) -> None:
    with plans_of(database) as plans:
        count_sunday(session)
    lines = [line.replace("COVERING ", "") for plan in plans for line in plan]
    assert not [line for line in lines if line.startswith("SCAN") and "happened" not in line]
    used = {line.split()[4] for line in lines if " USING INDEX " in line}
    assert used >= {
        "ix_bookings_created_at",
        "ix_bookings_completed_at",
        "ix_bookings_cancelled_at",
        "ix_bookings_no_show_at",
        "ix_bookings_status_starts_at",
        "ix_email_messages_sent_at",
        "ix_email_messages_failed_at",
        "ix_outbox_entries_finished_at_state",
    }


def generate(
    session: Session, day: str | None = None, *, due_at: datetime | None = None, now: datetime
) -> str:
    summary = analytics.generate_daily(session, day, due_at=due_at or now, zone=EASTERN, now=now)
    return summary.date


@pytest.mark.parametrize(
    ("due_at", "day"),
    [
        pytest.param(at(MONDAY, 2), SUNDAY, id="at its due instant"),
        pytest.param(at(MONDAY, 0), SUNDAY, id="in the first moment of a day"),
        pytest.param(at(MONDAY, 0) - MICROSECOND, SATURDAY, id="in the last moment of a day"),
        pytest.param(at(date(2026, 11, 2), 2), date(2026, 11, 1), id="after a day of 25 hours"),
        pytest.param(at(date(2026, 3, 9), 2), date(2026, 3, 8), id="after a day of 23 hours"),
    ],
)
def test_without_a_date_it_is_the_day_before_the_due_instant(
    session: Session, due_at: datetime, day: date
) -> None:
    assert generate(session, due_at=due_at, now=due_at) == day.isoformat()


def test_a_run_that_is_late_is_about_the_day_of_its_due_instant(session: Session) -> None:
    late = TWO_O_CLOCK + 3 * DAY
    assert generate(session, due_at=TWO_O_CLOCK, now=late) == SUNDAY.isoformat()


@pytest.mark.parametrize(
    "day", ["yesterday", "", "2026-13-01", "2026-02-30", "20260301", "2026-W09-7", "0001-01-01"]
)
def test_what_is_no_day_is_refused_in_one_line(session: Session, day: str) -> None:
    with pytest.raises(
        WrongDayError, match=r"^.*(a date such as 2026-11-01|the first day that is counted)$"
    ):
        generate(session, day, now=TWO_O_CLOCK)


@pytest.mark.parametrize("day", [20260301, 3.5, ["2026-03-01"], True])
def test_what_is_no_text_is_refused_too(session: Session, day: str) -> None:
    with pytest.raises(WrongDayError, match=r"is no day: pass a date such as 2026-11-01$"):
        generate(session, day, now=TWO_O_CLOCK)


@pytest.mark.parametrize("day", ["2026-03-02", "2026-03-03", "9999-12-31"])
def test_a_day_that_is_not_over_is_refused_in_one_line(session: Session, day: str) -> None:
    with pytest.raises(WrongDayError) as refused:
        generate(session, day, now=TWO_O_CLOCK)
    assert str(refused.value) == (
        f"{day} is not over in US/Eastern: the last day that can be counted is 2026-03-01"
    )


def test_a_day_can_be_counted_from_the_moment_it_is_over(session: Session) -> None:
    over = day_start(MONDAY, EASTERN)
    assert generate(session, SUNDAY.isoformat(), now=over) == SUNDAY.isoformat()
    with pytest.raises(WrongDayError):
        generate(session, SUNDAY.isoformat(), now=over - MICROSECOND)


DIGESTS = "app.tasks.email.send_digests"
REPORTS = "app.tasks.email.send_weekly_reports"


def mails(session: Session) -> list[tuple[str, list[str], str | None, datetime]]:
    rows = session.execute(
        select(OutboxEntry.task, OutboxEntry.args, OutboxEntry.key, OutboxEntry.due_at).order_by(
            OutboxEntry.task
        )
    )
    return [tuple(row) for row in rows]


def test_a_days_digests_are_mailed_the_next_morning(session: Session) -> None:
    generate(session, now=at(SUNDAY, 2))
    assert mails(session) == [
        (DIGESTS, ["2026-02-28"], "digest:2026-02-28", at(SUNDAY, 8)),
    ]


def test_a_sundays_count_also_plans_the_report_of_its_week(session: Session) -> None:
    generate(session, now=TWO_O_CLOCK)
    assert mails(session) == [
        (DIGESTS, ["2026-03-01"], "digest:2026-03-01", at(MONDAY, 8)),
        (REPORTS, ["2026-02-23"], "weekly-report:2026-02-23", at(MONDAY, 8)),
    ]


def test_the_morning_is_the_same_on_the_wall_when_the_clocks_were_changed(
    session: Session,
) -> None:
    generate(session, "2026-03-07", now=datetime(2026, 3, 8, 5, tzinfo=UTC))
    assert mails(session)[0][3] == datetime(2026, 3, 8, 12, tzinfo=UTC)


def test_a_second_count_mails_nobody_twice(session: Session) -> None:
    generate(session, now=TWO_O_CLOCK)
    generate(session, SUNDAY.isoformat(), now=TWO_O_CLOCK + HOUR)
    assert len(mails(session)) == 2


@pytest.mark.parametrize(
    ("late", "mailed"),
    [
        pytest.param(DIGESTS_FOR, [DIGESTS, REPORTS], id="after an outage"),
        pytest.param(DIGESTS_FOR + MICROSECOND, [REPORTS], id="too late for digests"),
        pytest.param(REPORTS_FOR, [REPORTS], id="before the next report"),
        pytest.param(REPORTS_FOR + MICROSECOND, [], id="in a backfill of the past"),
    ],
)
def test_nobody_is_mailed_about_what_is_long_past(
    session: Session, late: timedelta, mailed: list[str]
) -> None:
    generate(session, SUNDAY.isoformat(), now=at(MONDAY, 8) + late)
    assert [task for task, *_ in mails(session)] == mailed


def test_work_is_kept_longer_than_its_mails_could_be_planned_again() -> None:
    """Its key is what keeps them single."""
    kept = timedelta(days=Settings.model_fields["outbox_retention_days"].metadata[0].ge)
    assert max(DIGESTS_FOR, REPORTS_FOR) < kept


def backfill(session: Session, first: str, last: str) -> int:
    summary = analytics.plan_backfill(session, first, last, zone=EASTERN, now=TWO_O_CLOCK)
    return summary.days


def test_a_backfill_plans_a_run_for_each_day(session: Session) -> None:
    assert backfill(session, "2026-02-27", "2026-03-01") == 3
    assert sorted(planned(session)) == [
        (analytics.GENERATE_DAILY, [day]) for day in ("2026-02-27", "2026-02-28", "2026-03-01")
    ]


def test_a_backfill_may_be_of_one_day_and_be_asked_for_again(session: Session) -> None:
    assert [backfill(session, "2026-03-01", "2026-03-01") for _ in range(2)] == [1, 1]
    assert len(planned(session)) == 2


def test_a_backfill_is_bounded(session: Session) -> None:
    first = SUNDAY - (MOST_DAYS - 1) * DAY
    assert backfill(session, first.isoformat(), SUNDAY.isoformat()) == MOST_DAYS
    with pytest.raises(WrongDayError, match=r"^367 days are more than 366"):
        backfill(session, (first - DAY).isoformat(), SUNDAY.isoformat())
    assert len(planned(session)) == MOST_DAYS


@pytest.mark.parametrize(
    ("first", "last", "reason"),
    [
        ("2026-03-01", "2026-02-28", "the last day, 2026-02-28, is before the first, 2026-03-01"),
        ("2026-02-27", "2026-03-02", "2026-03-02 is not over"),
        ("2026-02-27", "soon", "'soon' is no day"),
        ("once", "2026-03-01", "'once' is no day"),
    ],
)
def test_a_backfill_that_cannot_be_done_whole_plans_nothing(
    session: Session, first: str, last: str, reason: str
) -> None:
    with pytest.raises(WrongDayError, match=f"^{reason}"):
        backfill(session, first, last)
    assert planned(session) == []
