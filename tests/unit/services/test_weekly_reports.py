from datetime import date, timedelta

import pytest
from sqlalchemy import Engine, delete
from sqlalchemy.orm import Session

from app import db
from app.models import EmailKind, InstructorMetrics
from app.services import email_delivery, weekly_reports
from app.services.email import DELIVER
from app.services.email_pages import PageSummary
from app.services.weekly_reports import SEND_WEEKLY_REPORTS
from app.settings import Settings
from tests.builders import NOON, all_mails, an_instructor, an_instructors_day, planned
from tests.fakes import FakeClock
from tests.mailers import FakeMailer

MONDAY = date(2026, 2, 23)
SUNDAY = date(2026, 3, 1)
DAY = timedelta(days=1)


def enqueue(session: Session, **options: int) -> PageSummary:
    return weekly_reports.enqueue(session, MONDAY, now=NOON, **options)


def test_an_instructor_with_figures_gets_one_report_about_the_week(session: Session) -> None:
    bob = an_instructor(session)
    for day in (MONDAY, SUNDAY):
        an_instructors_day(session, instructor=bob, date=day)
    an_instructor(session)
    assert enqueue(session) == PageSummary(planned=1, deliveries=1, goes_on=False)
    (mail,) = all_mails(session)
    assert (mail.kind, mail.subject_id, mail.recipient_id) == (
        EmailKind.WEEKLY_REPORT,
        20260223,
        bob.id,
    )
    assert planned(session) == [(DELIVER, [[mail.id]])]


@pytest.mark.parametrize(
    ("day", "belongs"),
    [(MONDAY - DAY, False), (MONDAY, True), (SUNDAY, True), (SUNDAY + DAY, False)],
)
def test_a_week_is_seven_days_from_its_monday(session: Session, day: date, belongs: bool) -> None:
    an_instructors_day(session, instructor=an_instructor(session), date=day)
    assert enqueue(session).planned == int(belongs)


def test_a_report_that_is_planned_twice_is_one_mail(session: Session) -> None:
    an_instructors_day(session, instructor=an_instructor(session), date=MONDAY)
    enqueue(session)
    assert enqueue(session).planned == 0
    assert (len(all_mails(session)), len(planned(session))) == (1, 1)


def test_many_instructors_are_planned_in_pages(session: Session) -> None:
    teachers = [an_instructor(session) for _ in range(3)]
    for teacher in teachers:
        an_instructors_day(session, instructor=teacher, date=MONDAY)
    assert enqueue(session, page=2).goes_on
    assert (SEND_WEEKLY_REPORTS, [MONDAY.isoformat(), teachers[1].id]) in planned(session)
    enqueue(session, page=2, after_user_id=teachers[1].id)
    assert [mail.recipient_id for mail in all_mails(session)] == [one.id for one in teachers]


@pytest.fixture
def mailer(database: Engine) -> FakeMailer:
    with db.transaction() as session:
        bob, other = an_instructor(session), an_instructor(session)
        an_instructors_day(
            session,
            instructor=bob,
            date=MONDAY,
            completed=2,
            cancelled=5,
            no_shows=7,
            revenue_cents=9_000,
        )
        an_instructors_day(
            session,
            instructor=bob,
            date=SUNDAY,
            completed=1,
            cancelled=6,
            no_shows=8,
            revenue_cents=4_550,
        )
        an_instructors_day(session, instructor=bob, date=SUNDAY + DAY, revenue_cents=1_000_000)
        an_instructors_day(session, instructor=other, date=MONDAY, revenue_cents=1_000_000)
        other.wants_digests = False
        session.flush()
        enqueue(session)
    return FakeMailer()


def deliver(mailer: FakeMailer) -> email_delivery.DeliverySummary:
    with db.reading() as session:
        email_ids = [mail.id for mail in all_mails(session)]
    return email_delivery.deliver(
        email_ids, mailer=mailer, settings=Settings(), clock=FakeClock(NOON)
    )


def test_the_report_adds_up_the_readers_own_week(mailer: FakeMailer) -> None:
    deliver(mailer)
    (mail,) = mailer.received
    assert mail["Subject"] == "Your week from Monday, 23 February 2026"
    text, html = (part.get_content() for part in mail.iter_parts())
    figures = [line.split() for line in text.splitlines() if line.startswith("  ")]
    assert [words[-1] for words in figures] == ["3", "11", "15", "$135.50"]
    assert "Sunday, 1 March 2026" in text
    for figure in ("3", "11", "15", "$135.50"):
        assert f'<td align="right">{figure}</td>' in html


def test_a_report_whose_metrics_are_gone_is_a_dead_letter(mailer: FakeMailer) -> None:
    with db.transaction() as session:
        session.execute(delete(InstructorMetrics))
    assert deliver(mailer).failed == 1
    with db.reading() as session:
        assert all_mails(session)[0].error == "its metrics are gone"
