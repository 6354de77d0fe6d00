from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine, update
from sqlalchemy.orm import Session

from app import db
from app.domain.calendar import day_span
from app.models import EmailKind, EmailState, Notification, OutboxEntry, User
from app.routing import queue_for, wire_priority
from app.services import digests, email_delivery
from app.services.digests import SEND_DIGESTS
from app.services.email import DELIVER
from app.services.email_letters.digest import LISTED
from app.services.email_pages import PageSummary
from app.settings import Settings
from tests.builders import NOON, a_notification, a_student, all_mails, planned
from tests.fakes import FakeClock
from tests.mailers import FakeMailer

ZONE = ZoneInfo(Settings().celery_timezone)
DAY = date(2026, 3, 2)
BEGINS, ENDS = day_span(DAY, ZONE)
TICK = timedelta(microseconds=1)


def enqueue(session: Session, **options: int) -> PageSummary:
    return digests.enqueue(session, DAY, zone=ZONE, now=ENDS, **options)


def readers(session: Session) -> list[int]:
    return [mail.recipient_id for mail in all_mails(session)]


def many_with_a_notification(session: Session, number: int) -> list[User]:
    users = [a_student(session) for _ in range(number)]
    for user in users:
        a_notification(session, user=user)
    return users


def test_a_user_with_unread_notifications_gets_one_mail_about_the_day(session: Session) -> None:
    ada = a_student(session)
    for _ in range(3):
        a_notification(session, user=ada)
    assert enqueue(session) == PageSummary(planned=1, deliveries=1, goes_on=False)
    (mail,) = all_mails(session)
    assert (mail.kind, mail.subject_id, mail.recipient_id, mail.state) == (
        EmailKind.DIGEST,
        20260302,
        ada.id,
        EmailState.QUEUED,
    )
    assert planned(session) == [(DELIVER, [[mail.id]])]


def test_a_digest_that_is_planned_twice_is_one_mail_with_one_delivery(session: Session) -> None:
    many_with_a_notification(session, 3)
    enqueue(session)
    assert enqueue(session) == PageSummary(planned=0, deliveries=0, goes_on=False)
    assert (len(all_mails(session)), len(planned(session))) == (3, 1)


def test_the_next_day_has_a_digest_of_its_own(session: Session) -> None:
    ada = a_student(session)
    a_notification(session, user=ada, created_at=ENDS - TICK)
    a_notification(session, user=ada, created_at=ENDS)
    enqueue(session)
    digests.enqueue(session, DAY + timedelta(days=1), zone=ZONE, now=ENDS)
    assert [mail.subject_id for mail in all_mails(session)] == [20260302, 20260303]


def test_who_has_read_everything_gets_no_mail(session: Session) -> None:
    a_notification(session, user=a_student(session), read_at=NOON)
    a_student(session)
    assert enqueue(session).planned == 0


@pytest.mark.parametrize(
    ("created_at", "belongs"),
    [(BEGINS - TICK, False), (BEGINS, True), (ENDS - TICK, True), (ENDS, False)],
)
def test_a_notification_belongs_to_the_schedules_day_wherever_its_reader_lives(
    session: Session, created_at: datetime, belongs: bool
) -> None:
    for zone in ("Pacific/Auckland", "America/Los_Angeles"):
        a_notification(session, user=a_student(session, time_zone=zone), created_at=created_at)
    assert enqueue(session).planned == (2 if belongs else 0)


def test_many_users_are_planned_in_pages_that_follow_each_other(session: Session) -> None:
    users = many_with_a_notification(session, 5)
    a_student(session)
    first = enqueue(session, page=2)
    assert first == PageSummary(planned=2, deliveries=1, goes_on=True)
    (args,) = (args for task, args in planned(session) if task == SEND_DIGESTS)
    assert args == [DAY.isoformat(), users[1].id]
    second = enqueue(session, page=2, after_user_id=users[1].id)
    last = enqueue(session, page=2, after_user_id=users[3].id)
    assert (second.goes_on, last.goes_on) == (True, False)
    assert readers(session) == [user.id for user in users]


def test_a_page_that_ends_with_the_last_user_is_followed_by_an_empty_one(session: Session) -> None:
    users = many_with_a_notification(session, 2)
    assert enqueue(session, page=2).goes_on
    after = enqueue(session, page=2, after_user_id=users[-1].id)
    assert after == PageSummary(planned=0, deliveries=0, goes_on=False)


def test_who_starts_again_from_the_first_user_gets_through_to_the_last(session: Session) -> None:
    users = many_with_a_notification(session, 3)
    enqueue(session, page=2)
    assert enqueue(session, page=2) == PageSummary(planned=0, deliveries=0, goes_on=True)
    enqueue(session, page=2, after_user_id=users[1].id)
    assert readers(session) == [user.id for user in users]


def test_users_who_opted_out_do_not_stop_the_pages(session: Session) -> None:
    users = many_with_a_notification(session, 3)
    for user in users[:2]:
        user.wants_digests = False
    session.flush()
    assert enqueue(session, page=2) == PageSummary(planned=0, deliveries=0, goes_on=True)


def test_digests_go_after_every_other_mail(session: Session) -> None:
    many_with_a_notification(session, 1)
    enqueue(session)
    (row,) = session.query(OutboxEntry)
    assert row.priority > wire_priority(queue_for(DELIVER).urgency)


def deliver(mailer: FakeMailer) -> email_delivery.DeliverySummary:
    with db.reading() as session:
        email_ids = [mail.id for mail in all_mails(session)]
    return email_delivery.deliver(
        email_ids, mailer=mailer, settings=Settings(), clock=FakeClock(ENDS)
    )


def sent(*titles: str, zone: str = "America/Los_Angeles") -> tuple[str, str, str]:
    """Subject, text and HTML of the digest of notifications a minute apart."""
    with db.transaction() as session:
        ada = a_student(session, time_zone=zone)
        for minute, title in enumerate(titles):
            a_notification(
                session,
                user=ada,
                title=title,
                body=f"About {title}",
                created_at=datetime(2026, 3, 2, 20, minute, tzinfo=UTC),
            )
        enqueue(session)
    mailer = FakeMailer()
    deliver(mailer)
    (mail,) = mailer.received
    text, html = (part.get_content() for part in mail.iter_parts())
    return str(mail["Subject"]), text, html


def test_the_digest_lists_the_latest_first_in_the_readers_time(database: Engine) -> None:
    subject, text, html = sent("First", "Second")
    assert subject == "2 unread notifications of Monday, 2 March 2026"
    for part in (text, html):
        assert part.index("Second") < part.index("First")
        assert "About First" in part
        assert "12:01 PST" in part
        assert "more." not in part


def test_one_notification_is_not_called_several(database: Engine) -> None:
    assert sent("First")[0] == "1 unread notification of Monday, 2 March 2026"


def test_a_long_digest_ends_with_how_many_more_there_are(database: Engine) -> None:
    titles = [f"Title {number:02}." for number in range(LISTED + 3)]
    subject, text, html = sent(*titles)
    assert subject.startswith(f"{LISTED + 3} unread")
    for part in (text, html):
        assert [title for title in titles if f"About {title}" in part] == titles[3:]
        assert "and 3 more." in part


def test_a_title_is_a_line_and_no_html(database: Engine) -> None:
    _, text, html = sent("<b>Tom</b>\r\n& Jerry")
    assert "* <b>Tom</b> & Jerry" in text.splitlines()
    assert "&lt;b&gt;Tom&lt;/b&gt; &amp; Jerry" in html


def read_everything() -> None:
    with db.transaction() as session:
        session.execute(update(Notification).values(read_at=ENDS))


def test_what_was_read_meanwhile_is_not_mailed(database: Engine) -> None:
    with db.transaction() as session:
        many_with_a_notification(session, 1)
        enqueue(session)
    read_everything()
    mailer = FakeMailer()
    assert (deliver(mailer).cancelled, mailer.received) == (1, [])
