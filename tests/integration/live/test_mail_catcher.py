"""A mail server that keeps what it accepts and fails as it is told."""

import smtplib
import sys
import time
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

import pytest

from scripts.live.deployment import REPOSITORY
from scripts.live.mail_catcher import MailCatcher, Stage
from scripts.live.mailbox import Mailbox
from scripts.live.ports import HOST
from scripts.live.processes import Process, Processes


@pytest.fixture
def catcher(tmp_path: Path) -> Iterator[MailCatcher]:
    with MailCatcher(tmp_path / "mail") as started:
        yield started


def a_mail(message_id: str = "<1@lessons>", to: str = "ada@example.com") -> EmailMessage:
    mail = EmailMessage()
    mail["From"] = "lessons@example.com"
    mail["To"] = to
    mail["Subject"] = "Violin, 10:00 – see you"
    mail["Message-ID"] = message_id
    mail.set_content("Dear Zoë,\n.\nSee you.\n")
    return mail


def send(port: int, *mails: EmailMessage) -> None:
    with smtplib.SMTP(HOST, port, timeout=10) as client:
        for mail in mails:
            client.send_message(mail)


def test_a_message_is_a_file_when_the_client_hears_250(catcher: MailCatcher) -> None:
    send(catcher.port, a_mail())
    (kept,) = catcher.mailbox.messages()
    assert kept["Subject"] == "Violin, 10:00 – see you"
    assert kept.get_content() == "Dear Zoë,\n.\nSee you.\n"
    assert list((catcher.maildir / "tmp").iterdir()) == []


def test_the_envelope_is_kept_and_not_only_the_headers(catcher: MailCatcher) -> None:
    with smtplib.SMTP(HOST, catcher.port, timeout=10) as client:
        client.sendmail("bounce@x.org", ["ada@x.org", "bob@x.org"], a_mail().as_bytes())
    (kept,) = catcher.mailbox.messages()
    assert kept["X-Envelope-From"] == "bounce@x.org"
    assert kept.get_all("X-Envelope-To") == ["ada@x.org", "bob@x.org"]


def test_a_mail_that_comes_twice_is_counted_as_doubled(catcher: MailCatcher) -> None:
    send(catcher.port, a_mail("<1@lessons>"), a_mail("<2@lessons>"), a_mail("<1@lessons>"))
    mailbox = Mailbox(catcher.maildir)
    assert mailbox.message_ids() == ["<1@lessons>", "<2@lessons>", "<1@lessons>"]
    assert (len(mailbox), mailbox.delivered, mailbox.doubled) == (3, 2, 1)


def test_messages_without_an_id_are_not_taken_for_doubles(catcher: MailCatcher) -> None:
    mails = [a_mail(), a_mail()]
    for mail in mails:
        del mail["Message-ID"]
    send(catcher.port, *mails)
    assert (catcher.mailbox.delivered, catcher.mailbox.doubled) == (2, 0)


def test_a_recipient_is_rejected_as_often_as_told(catcher: MailCatcher) -> None:
    catcher.reject(450, "mailbox busy", times=2)
    for _ in range(2):
        with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
            send(catcher.port, a_mail())
        assert refused.value.recipients == {"ada@example.com": (450, b"mailbox busy")}
    send(catcher.port, a_mail())
    assert len(catcher.mailbox) == 1


def test_only_matching_recipients_are_rejected(catcher: MailCatcher) -> None:
    catcher.reject(550, "no such user", match=lambda recipient: recipient.startswith("bob"))
    send(catcher.port, a_mail())
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        send(catcher.port, a_mail(to="bob@example.com"))
    catcher.heal()
    send(catcher.port, a_mail(to="bob@example.com"))
    assert len(catcher.mailbox) == 2


def test_a_message_rejected_after_data_is_not_kept(catcher: MailCatcher) -> None:
    catcher.reject(554, "spam", at="data", times=1)
    with pytest.raises(smtplib.SMTPDataError) as refused:
        send(catcher.port, a_mail())
    assert refused.value.smtp_code == 554
    assert len(catcher.mailbox) == 0


def test_dropped_after_data_the_mail_is_kept_and_the_client_does_not_know(
    catcher: MailCatcher,
) -> None:
    catcher.drop_after_data()
    with pytest.raises(smtplib.SMTPServerDisconnected):
        send(catcher.port, a_mail())
    assert len(catcher.mailbox) == 1
    send(catcher.port, a_mail())
    assert catcher.mailbox.doubled == 1


@pytest.mark.parametrize("stage", ["rcpt", "data"])
def test_a_slow_server_keeps_the_client_waiting(catcher: MailCatcher, stage: Stage) -> None:
    catcher.delay(0.5, at=stage)
    began = time.monotonic()
    send(catcher.port, a_mail())
    assert time.monotonic() - began >= 0.5
    assert len(catcher.mailbox) == 1


def test_stopped_it_refuses_and_started_it_is_on_the_same_port(catcher: MailCatcher) -> None:
    port = catcher.port
    catcher.stop()
    with pytest.raises(ConnectionRefusedError):
        send(port, a_mail())
    catcher.start()
    send(port, a_mail())
    assert len(catcher.mailbox) == 1


def test_waiting_for_mails_says_how_many_came(catcher: MailCatcher) -> None:
    send(catcher.port, a_mail())
    assert len(catcher.mailbox.wait_for(1, timeout=1)) == 1
    with pytest.raises(TimeoutError, match="1 of 2 mails"):
        catcher.mailbox.wait_for(2, timeout=0.1)


def test_it_runs_as_a_command_of_its_own(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "scripts.live.mail_catcher"]
    options = ["--port", "0", "--maildir", str(tmp_path / "mail")]
    with Processes() as processes:
        process = processes.start(
            Process([*command, *options], log=tmp_path / "log", cwd=REPOSITORY)
        )
        port = int(process.wait_for_line(r"smtp://127\.0\.0\.1:(\d+)")[1])
        send(port, a_mail())
        assert process.terminate() == 0
        assert process.log_text().count("\n") == 1
    assert Mailbox(tmp_path / "mail").delivered == 1


def test_stopped_it_hangs_up_on_a_client_in_mid_conversation(catcher: MailCatcher) -> None:
    with smtplib.SMTP(HOST, catcher.port, timeout=5) as client:
        client.ehlo()
        catcher.stop()
        with pytest.raises(smtplib.SMTPServerDisconnected):
            client.send_message(a_mail())
    assert len(catcher.mailbox) == 0
