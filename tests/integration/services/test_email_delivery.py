"""Lessons' mails through a real SMTP conversation into a mailbox that is counted."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, func, select

from app import db
from app.adapters.mailer import MailRefusesUsError
from app.adapters.mailers import mailer_from
from app.models import EmailMessage, User
from app.services import email, email_delivery
from app.services.email_delivery import DeliverySummary
from app.settings import Settings
from scripts.live.mail_catcher import MailCatcher
from tests.builders import NOON, many_lessons
from tests.fakes import FakeClock

LEASE = timedelta(seconds=60)


@pytest.fixture
def catcher(tmp_path: Path) -> Iterator[MailCatcher]:
    with MailCatcher(tmp_path / "mail") as started:
        yield started


class Post:
    """Confirmations of a few lessons, and a worker that delivers them."""

    def __init__(self, catcher: MailCatcher, lessons: int = 5) -> None:
        self.clock = FakeClock(NOON)
        self.settings = Settings(
            smtp_url=SecretStr(catcher.url),
            smtp_timeout_seconds=5,
            mail_lease_seconds=LEASE.total_seconds(),
        )
        with db.transaction() as session:
            self.email_ids = [
                email_id
                for booking_id in many_lessons(session, lessons, starts_at=NOON + 2 * LEASE)
                for email_id in email.queue_confirmation(session, booking_id, now=NOON)
            ]

    def deliver(self) -> DeliverySummary:
        return email_delivery.deliver(
            self.email_ids,
            mailer=mailer_from(self.settings),
            settings=self.settings,
            clock=self.clock,
        )


def uncertain() -> int:
    with db.reading() as session:
        return session.scalar(select(func.sum(EmailMessage.uncertain))) or 0


def test_every_reader_gets_the_mail_that_is_meant_for_them(
    database: Engine, catcher: MailCatcher
) -> None:
    post = Post(catcher)
    assert post.deliver().sent == 10
    with db.reading() as session:
        people = set(session.scalars(select(User.email).where(User.email.like("%@crowd.example"))))
    kept = catcher.mailbox.messages()
    assert {mail["X-Envelope-To"] for mail in kept} == people
    assert all(mail["X-Envelope-To"] == mail["To"].addresses[0].addr_spec for mail in kept)
    assert (catcher.mailbox.delivered, catcher.mailbox.doubled) == (10, 0)


def test_a_server_that_comes_and_goes_gets_each_mail_once(
    database: Engine, catcher: MailCatcher
) -> None:
    post = Post(catcher)
    catcher.reject(451, times=3)
    catcher.reject(452, at="data", times=2)
    first = post.deliver()
    assert (first.sent, len(first.left)) == (5, 5)
    catcher.stop()
    assert post.deliver().sent == 0
    catcher.start()
    assert post.deliver().sent == 5
    assert (catcher.mailbox.delivered, catcher.mailbox.doubled, uncertain()) == (10, 0, 0)


def test_a_mail_is_doubled_only_where_its_fate_was_unknown_and_that_is_counted(
    database: Engine, catcher: MailCatcher
) -> None:
    post = Post(catcher)
    catcher.drop_after_data(times=1)
    first = post.deliver()
    assert first.retry_after == LEASE.total_seconds()
    while post.deliver().sent:
        pass
    assert (catcher.mailbox.delivered, catcher.mailbox.doubled) == (10, 0)
    post.clock.now += LEASE
    assert post.deliver().sent == 1
    assert (catcher.mailbox.delivered, catcher.mailbox.doubled, uncertain()) == (10, 1, 1)


@pytest.mark.usefixtures("database")
def test_a_server_that_refuses_our_sender_gives_no_mail_up(
    catcher: MailCatcher, caplog: pytest.LogCaptureFixture
) -> None:
    post = Post(catcher)
    catcher.reject(550, "5.7.1 not this sender", at="mail")
    for _ in range(3):
        summary = post.deliver()
        assert (summary.sent, summary.failed, summary.left) == (0, 0, tuple(post.email_ids))
        assert isinstance(summary.error, MailRefusesUsError)
    refusal = f"127.0.0.1:{catcher.port}: SMTP 550 5.7.1 to MAIL"
    assert caplog.text.count(f"the mail server refuses us, no mail goes out: {refusal}") == 3
    catcher.heal()
    assert post.deliver().sent == len(post.email_ids)
    assert len(catcher.mailbox) == len(post.email_ids)


@pytest.mark.usefixtures("database")
def test_a_refused_reader_is_given_up_and_no_other(catcher: MailCatcher) -> None:
    post = Post(catcher)
    catcher.reject(550, "5.1.1 nobody", times=1)
    summary = post.deliver()
    assert (summary.sent, summary.failed) == (len(post.email_ids) - 1, 1)
