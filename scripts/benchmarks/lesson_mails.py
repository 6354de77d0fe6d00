"""The peers' job: the reminder of one lesson to its student, as each peer's task runs it.

Same tables, same letter, same mail and same bytes as ours. What is idiomatic is what differs:
a task for each mail, which reads what it needs, skips what was sent, sends, and marks it sent.
It is simpler than ours: no lease keeps a second delivery from sending the mail again while
the first one is at it.
"""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from zoneinfo import ZoneInfo

from app import clock, db
from app.adapters.mailers import mailer_from, sender_address
from app.adapters.smtp import SmtpMailer
from app.domain import reminders
from app.models import EmailMessage, EmailState
from app.services import email, email_letters
from app.services.email_rendering import render
from app.services.reminders import due_lessons
from app.settings import load_settings
from scripts.benchmarks import environment


def planned() -> list[int]:
    """Insert a row for each mail that is due, in one statement for each kind; their ids."""
    now = clock.utcnow()
    ids: list[int] = []
    with db.transaction() as session:
        for kind in reminders.LEADS:
            due = due_lessons(kind, now=now, dialect=session.get_bind().dialect.name)
            ids += email.plan(session, kind, email.both_sides(due), now=now)
    return ids


def send(email_id: int) -> None:
    """Send one of the mails, unless it was sent."""
    settings = load_settings()
    now = clock.utcnow()
    with db.reading() as session:
        mail = session.get(EmailMessage, email_id)
        if mail is None or mail.state is EmailState.SENT:
            return
        zone = ZoneInfo(settings.celery_timezone)
        letter = email_letters.read(session.connection(), email_id, mail.kind, now=now, zone=zone)
    if letter is None:
        return
    message = render(letter, settings=settings, now=now)
    with _mail_server() as server:
        server.sendmail(sender_address(settings), [letter.reader_address], message)
    with db.transaction() as session:
        sent = session.get_one(EmailMessage, email_id)
        sent.state = EmailState.SENT
        sent.sent_at = clock.utcnow()


@contextmanager
def _mail_server() -> Iterator[smtplib.SMTP]:
    if not environment.keeps_connection():
        with _connected() as server:
            yield server
        return
    try:
        yield _kept()
    except (smtplib.SMTPException, OSError):
        _kept.cache_clear()
        raise


@cache
def _kept() -> smtplib.SMTP:
    return _connected()


def _connected() -> smtplib.SMTP:
    mailer = _mailer()
    return smtplib.SMTP(mailer.host, mailer.port, local_hostname=mailer.hello, timeout=10)


@cache
def _mailer() -> SmtpMailer:
    found = mailer_from(load_settings())
    assert isinstance(found, SmtpMailer)  # noqa: S101 - the benchmark's own URL
    return found
