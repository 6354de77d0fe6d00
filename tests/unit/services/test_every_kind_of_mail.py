"""What holds for a mail of every kind."""

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from app import db
from app.models import EmailKind, EmailMessage, EmailState, OutboxEntry, User
from app.services import email_delivery
from app.services.email import DELIVER
from app.services.email_delivery import DeliverySummary
from app.settings import Settings
from tests.builders import NOON
from tests.each_kind import CHOICES, a_reader, choose, plan
from tests.fakes import FakeClock
from tests.mailers import FakeMailer

every_kind = pytest.mark.parametrize("kind", list(EmailKind))
every_choice = pytest.mark.parametrize("kind", list(CHOICES))
SCRIPT = "<script>alert('x')</script>"
INJECTION = "x\r\nBcc: victim@people.example"


@pytest.fixture
def mailer(database: Engine) -> FakeMailer:
    return FakeMailer()


def planned(kind: EmailKind, *, name: str = "Ada Lovelace", wants_it: bool = True) -> list[int]:
    """Ids of the reader's mails of this kind."""
    with db.transaction() as session:
        reader = a_reader(session, kind, wants_it=wants_it, name=name)
        return [mail.id for mail in plan(session, kind, reader, now=NOON)]


def deliver(mailer: FakeMailer, email_ids: list[int]) -> DeliverySummary:
    return email_delivery.deliver(
        email_ids, mailer=mailer, settings=Settings(), clock=FakeClock(NOON)
    )


def states() -> set[EmailState]:
    with db.reading() as session:
        return set(session.scalars(select(EmailMessage.state)))


@every_kind
def test_a_mail_arrives_once_under_its_own_id_in_text_and_html(
    mailer: FakeMailer, kind: EmailKind
) -> None:
    (email_id,) = planned(kind)
    deliver(mailer, [email_id])
    deliver(mailer, [email_id])
    (mail,) = mailer.received
    with db.reading() as session:
        row = session.scalars(select(EmailMessage).where(EmailMessage.id == email_id)).one()
    key = f"{kind}.{row.subject_id}.{row.recipient_id}"
    assert mail["Message-ID"] == f"<{key}@instainstru.example>"
    text, html = (part.get_content() for part in mail.iter_parts())
    assert "Hello Ada Lovelace," in text
    assert "<p>Hello Ada Lovelace,</p>" in html
    assert (row.state, mail.defects) == (EmailState.SENT, [])


@every_kind
def test_a_planned_mail_has_one_delivery(session: Session, kind: EmailKind) -> None:
    (mail,) = plan(session, kind, a_reader(session, kind), now=NOON)
    deliveries = session.scalars(select(OutboxEntry.args).where(OutboxEntry.task == DELIVER))
    assert [mail.id in ids for (ids,) in deliveries] == [True]


@every_choice
def test_nobody_is_planned_a_mail_that_they_opted_out_of(session: Session, kind: EmailKind) -> None:
    assert plan(session, kind, a_reader(session, kind, wants_it=False), now=NOON) == []


@every_choice
def test_a_mail_is_withdrawn_when_its_reader_opts_out_before_it_goes(
    mailer: FakeMailer, kind: EmailKind
) -> None:
    email_ids = planned(kind)
    with db.transaction() as session:
        for reader in session.scalars(select(User)):
            choose(reader, kind, False)
    assert deliver(mailer, email_ids).cancelled == 1
    assert (mailer.received, states() & {EmailState.SENT}) == ([], set())


@every_kind
def test_a_mail_obeys_no_choice_but_its_own(mailer: FakeMailer, kind: EmailKind) -> None:
    with db.transaction() as session:
        reader = a_reader(session, kind)
        for choice in set(CHOICES.values()) - {CHOICES.get(kind)}:
            setattr(reader, choice, False)
        session.flush()
        email_ids = [mail.id for mail in plan(session, kind, reader, now=NOON)]
    assert deliver(mailer, email_ids).sent == 1


@every_kind
def test_every_mail_but_a_password_reset_says_how_to_get_no_more(
    mailer: FakeMailer, kind: EmailKind
) -> None:
    deliver(mailer, planned(kind))
    (mail,) = mailer.received
    offered = [
        "/settings/notifications" in place
        for place in (
            str(mail["List-Unsubscribe"]),
            *(part.get_content() for part in mail.iter_parts()),
        )
    ]
    assert offered == [kind is not EmailKind.PASSWORD_RESET] * 3


@every_kind
def test_no_name_becomes_a_header_or_html(mailer: FakeMailer, kind: EmailKind) -> None:
    deliver(mailer, planned(kind, name=f"{SCRIPT} {INJECTION}"))
    (mail,) = mailer.received
    assert mail["Bcc"] is None
    assert len(mail["To"].addresses) == 1
    assert all("<script" not in part.get_content() for part in list(mail.iter_parts())[1:])
