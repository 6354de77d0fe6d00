"""A mail of each kind through a real SMTP conversation."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine

from app import db
from app.adapters.mailers import mailer_from
from app.models import EmailKind
from app.services import email_delivery
from app.settings import Settings
from scripts.live.mail_catcher import MailCatcher
from tests.builders import A_TOKEN, NOON
from tests.each_kind import a_reader, plan
from tests.fakes import FakeClock

SAID = {
    EmailKind.BOOKING_CONFIRMATION: "is confirmed",
    EmailKind.BOOKING_CANCELLATION: "is cancelled",
    EmailKind.REMINDER_24H: "is coming up",
    EmailKind.REMINDER_1H: "begins soon",
    EmailKind.NO_SHOW: "neither you nor",
    EmailKind.PASSWORD_RESET: A_TOKEN,
    EmailKind.DIGEST: "what you have not read",
    EmailKind.WEEKLY_REPORT: "$45.00",
}


@pytest.fixture
def catcher(tmp_path: Path) -> Iterator[MailCatcher]:
    with MailCatcher(tmp_path / "mail") as started:
        yield started


def test_each_kind_arrives_once_with_both_parts(database: Engine, catcher: MailCatcher) -> None:
    with db.transaction() as session:
        mails = {
            kind: plan(session, kind, a_reader(session, kind, name="Zoë & Söhne"), now=NOON)[0]
            for kind in EmailKind
        }
    settings = Settings(smtp_url=SecretStr(catcher.url))
    for _ in range(2):
        email_delivery.deliver(
            [mail.id for mail in mails.values()],
            mailer=mailer_from(settings),
            settings=settings,
            clock=FakeClock(NOON),
        )
    kept = catcher.mailbox.messages()
    arrived = {mail["Message-ID"].split(".")[0].lstrip("<"): mail for mail in kept}
    assert len(kept) == len(arrived) == len(EmailKind)
    for kind, said in SAID.items():
        parts = list(arrived[kind].iter_parts())
        assert [part.get_content_type() for part in parts] == ["text/plain", "text/html"]
        assert all(said in part.get_content() for part in parts)
        assert arrived[kind]["To"].addresses[0].display_name == "Zoë & Söhne"
