"""Our SMTP client in conversation with real servers."""

import shutil
import smtplib
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from email.message import EmailMessage as ReceivedMail
from pathlib import Path
from threading import Thread, current_thread, main_thread
from typing import Any, NoReturn

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Message
from aiosmtpd.smtp import AuthResult, LoginPassword
from sqlalchemy import Engine

from app import db
from app.adapters.mailer import (
    MailFateUnknownError,
    MailRefusedError,
    MailRefusesUsError,
    MailServerUnavailableError,
    MailTemporarilyRefusedError,
)
from app.adapters.smtp import SmtpMailer, Tls
from app.db import NetworkInTransactionError
from scripts.live.mail_catcher import MailCatcher
from scripts.live.ports import HOST, free_port

US = "lessons@lessons.example"
ADA = "ada@people.example"
BOB = "bob@people.example"

SHORT = 0.3  # seconds: a wait that a test can afford


def always(_ahead: float) -> bool:
    return True


def message(body: bytes = b"Hello\r\n", number: int = 1) -> Callable[[], bytes]:
    return lambda: b"Message-ID: <%d@lessons>\r\nSubject: Guitar\r\n\r\n%s" % (number, body)


def send(
    mailer: SmtpMailer, *recipients: str, proceed: Callable[[float], bool] = always
) -> list[bool]:
    with mailer.open() as connection:
        return [
            connection.send(message(number=number), sender=US, recipient=recipient, proceed=proceed)
            for number, recipient in enumerate(recipients)
        ]


@pytest.fixture(params=[False, True], ids=["one command at a time", "pipelining"])
def catcher(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[MailCatcher]:
    with MailCatcher(tmp_path / "mail", pipelining=request.param) as started:
        yield started


@pytest.fixture
def mailer(catcher: MailCatcher) -> SmtpMailer:
    return SmtpMailer(HOST, catcher.port, hello="lessons.example", timeout=5, answer_timeout=5)


def test_mails_go_over_one_connection_each_to_its_reader(
    mailer: SmtpMailer, catcher: MailCatcher
) -> None:
    assert send(mailer, ADA, BOB) == [True, True]
    kept = catcher.mailbox.messages()
    assert [mail["X-Envelope-To"] for mail in kept] == [ADA, BOB]
    assert {mail["X-Envelope-From"] for mail in kept} == {US}


def test_a_server_that_takes_several_commands_at_once_gets_them_in_one_packet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[bytes] = []
    sendall = smtplib.SMTP.send

    def noting(client: smtplib.SMTP, data: Any) -> None:
        written.append(data if isinstance(data, bytes) else data.encode())
        sendall(client, data)

    monkeypatch.setattr(smtplib.SMTP, "send", noting)
    with MailCatcher(tmp_path / "mail", pipelining=True) as catcher:
        send(SmtpMailer(HOST, catcher.port, hello="lessons.example"), ADA)
    together = [data for data in written if data.startswith(b"MAIL")]
    assert together == [f"MAIL FROM:<{US}>\r\nRCPT TO:<{ADA}>\r\nDATA\r\n".encode()]


class RefusesTheFirstSender(Message):
    """Takes several commands at once, and refuses MAIL once: RCPT is out of order then."""

    def __init__(self) -> None:
        super().__init__(ReceivedMail)
        self.mails: list[Any] = []
        self._refused = False

    async def handle_EHLO(
        self, server: Any, session: Any, envelope: Any, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        return [*responses[:-1], "250-PIPELINING", responses[-1]]

    async def handle_MAIL(
        self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        if not self._refused:
            self._refused = True
            return "451 4.3.0 later"
        envelope.mail_from = address
        return "250 OK"

    def handle_message(self, message: Any) -> None:
        self.mails.append(message)


def test_a_refused_sender_leaves_no_answer_for_the_next_mail_to_take_for_its_own() -> None:
    handler = RefusesTheFirstSender()
    controller = Controller(handler, hostname=HOST, port=free_port())
    controller.start()
    try:
        mailer = SmtpMailer(HOST, controller.port, hello="lessons.example", timeout=5)
        with mailer.open() as connection:
            with pytest.raises(
                MailTemporarilyRefusedError, match=rf"^{HOST}:\d+: SMTP 451 4.3.0 to MAIL$"
            ):
                connection.send(message(number=1), sender=US, recipient=ADA, proceed=always)
            assert connection.send(message(number=2), sender=US, recipient=BOB, proceed=always)
    finally:
        controller.stop()
    assert [mail["X-RcptTo"] for mail in handler.mails] == [BOB]


@pytest.mark.parametrize(
    "body", [b".\r\n", b"..\r\n.a\r\nb.\r\n", b"x\r\n.\r\ny\r\n", b"no line end", b"\r\n.\r\n\r\n"]
)
def test_lines_that_begin_with_a_dot_arrive_as_they_are(
    mailer: SmtpMailer, catcher: MailCatcher, body: bytes
) -> None:
    with mailer.open() as connection:
        connection.send(message(body), sender=US, recipient=ADA, proceed=always)
        connection.send(message(), sender=US, recipient=BOB, proceed=always)
    first, second = catcher.mailbox.messages()
    expected = body if body.endswith(b"\r\n") else body + b"\r\n"
    assert first.get_content() == expected.replace(b"\r\n", b"\n").decode()
    assert second["X-Envelope-To"] == BOB


def test_a_dot_at_the_very_beginning_arrives_too(mailer: SmtpMailer, catcher: MailCatcher) -> None:
    with mailer.open() as connection:
        connection.send(lambda: b".x\r\n", sender=US, recipient=ADA, proceed=always)
    (kept,) = catcher.mailbox.messages()
    assert kept.get_payload() == ".x\n"


def test_our_own_name_is_never_looked_up(
    mailer: SmtpMailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_up = socket.getfqdn

    def refuse_us(name: str = "") -> str:
        assert current_thread() is not main_thread(), "a look-up in the DNS, which may hang"
        return look_up(name)

    monkeypatch.setattr(socket, "getfqdn", refuse_us)
    assert send(mailer, ADA) == [True]


def test_a_mail_inside_a_transaction_is_refused(
    mailer: SmtpMailer, catcher: MailCatcher, database: Engine
) -> None:
    with pytest.raises(NetworkInTransactionError), db.transaction():
        send(mailer, ADA)
    with (
        mailer.open() as connection,
        db.transaction(),
        pytest.raises(NetworkInTransactionError),
    ):
        connection.send(message(), sender=US, recipient=ADA, proceed=always)
    assert len(catcher.mailbox) == 0


def test_a_mail_that_is_withheld_at_the_last_moment_never_arrives(
    mailer: SmtpMailer, catcher: MailCatcher
) -> None:
    assert send(mailer, ADA, proceed=lambda _: False) == [False]
    assert send(mailer, BOB) == [True]
    (kept,) = catcher.mailbox.messages()
    assert kept.get_all("X-Envelope-To") == [BOB]


def test_a_connection_that_withheld_a_mail_takes_no_other_one(
    mailer: SmtpMailer, catcher: MailCatcher
) -> None:
    """Its server waits for a message, and would take the next mail's commands for one."""
    answers = iter([False, True])
    with pytest.raises(MailServerUnavailableError):
        send(mailer, ADA, BOB, proceed=lambda _: next(answers))
    assert len(catcher.mailbox) == 0


def test_a_mail_that_cannot_be_written_is_not_sent_and_ends_the_connection(
    mailer: SmtpMailer, catcher: MailCatcher
) -> None:
    def fail() -> NoReturn:
        raise ZeroDivisionError

    with mailer.open() as connection:
        with pytest.raises(ZeroDivisionError):
            connection.send(fail, sender=US, recipient=ADA, proceed=always)
        with pytest.raises(MailServerUnavailableError):
            connection.send(message(), sender=US, recipient=BOB, proceed=always)
    assert len(catcher.mailbox) == 0


def test_it_is_told_how_long_the_message_may_still_have_to_wait(
    mailer: SmtpMailer, catcher: MailCatcher
) -> None:
    told: list[float] = []

    def ask(ahead: float) -> bool:
        told.append(ahead)
        return True

    send(mailer, ADA, proceed=ask)
    # Where all commands came at once, nothing but the message is left to be said.
    assert told == ([0.0] if catcher.pipelining else [mailer.timeout])


def test_a_refused_reader_is_not_asked_about(mailer: SmtpMailer, catcher: MailCatcher) -> None:
    catcher.reject(550)

    def ask(_ahead: float) -> NoReturn:
        raise AssertionError("asked")

    with pytest.raises(MailRefusedError):
        send(mailer, ADA, proceed=ask)


@pytest.mark.parametrize(
    ("code", "error"), [(450, MailTemporarilyRefusedError), (550, MailRefusedError)]
)
@pytest.mark.parametrize("at", ["rcpt", "data"])
def test_after_a_refused_mail_the_next_one_goes_through(
    mailer: SmtpMailer, catcher: MailCatcher, code: int, error: type[Exception], at: Any
) -> None:
    catcher.reject(code, f"5.7.1 not for {ADA}", match=lambda reader: reader == ADA, at=at)
    place = "RCPT" if at == "rcpt" else "the message"
    with mailer.open() as connection:
        with pytest.raises(error) as refused:
            connection.send(message(), sender=US, recipient=ADA, proceed=always)
        assert connection.send(message(), sender=US, recipient=BOB, proceed=always)
    assert str(refused.value) == f"{HOST}:{catcher.port}: SMTP {code} 5.7.1 to {place}"
    (kept,) = catcher.mailbox.messages()
    assert kept.get_all("X-Envelope-To") == [BOB]


def test_an_address_that_cannot_be_used_never_gets_into_a_command(
    mailer: SmtpMailer, catcher: MailCatcher
) -> None:
    with mailer.open() as connection:
        with pytest.raises(MailRefusedError):
            connection.send(
                message(), sender=US, recipient=f"{ADA}>\r\nRCPT TO:<{BOB}", proceed=always
            )
        assert connection.send(message(), sender=US, recipient=ADA, proceed=always)
    (kept,) = catcher.mailbox.messages()
    assert kept.get_all("X-Envelope-To") == [ADA]


def test_a_server_that_refuses_connections_is_unavailable(
    mailer: SmtpMailer, catcher: MailCatcher
) -> None:
    catcher.stop()
    with pytest.raises(MailServerUnavailableError) as error:
        send(mailer, ADA)
    assert str(error.value) == f"{HOST}:{catcher.port}: Connection refused"


def test_an_ipv6_host_is_named_in_brackets() -> None:
    port = free_port()
    with pytest.raises(MailServerUnavailableError, match=rf"^\[::1\]:{port}: "):
        send(SmtpMailer("::1", port, hello="us.example", timeout=SHORT), ADA)


def test_a_host_that_does_not_exist_is_unavailable(mailer: SmtpMailer) -> None:
    for host in ("no-such-host.invalid", "ü" * 80):
        with pytest.raises(MailServerUnavailableError):
            send(replace(mailer, host=host), ADA)


def test_a_connection_lost_between_two_mails_lost_neither(
    mailer: SmtpMailer, catcher: MailCatcher
) -> None:
    with mailer.open() as connection:
        assert connection.send(message(), sender=US, recipient=ADA, proceed=always)
        catcher.stop()
        with pytest.raises(MailServerUnavailableError, match="at MAIL"):
            connection.send(message(), sender=US, recipient=BOB, proceed=always)
    assert len(catcher.mailbox) == 1


def test_a_connection_lost_after_the_message_leaves_its_fate_unknown(
    mailer: SmtpMailer, catcher: MailCatcher
) -> None:
    catcher.drop_after_data()
    with pytest.raises(
        MailFateUnknownError, match=rf"^{HOST}:{catcher.port}: .* after the message$"
    ):
        send(mailer, ADA)
    assert len(catcher.mailbox) == 1


def test_a_server_that_thinks_about_a_mail_for_long_is_waited_for(
    mailer: SmtpMailer, catcher: MailCatcher
) -> None:
    catcher.delay(3 * SHORT)
    assert send(replace(mailer, timeout=SHORT), ADA, BOB) == [True, True]


def test_a_server_that_thinks_about_a_mail_for_too_long_leaves_its_fate_unknown(
    mailer: SmtpMailer, catcher: MailCatcher
) -> None:
    catcher.delay(4 * SHORT)
    with pytest.raises(MailFateUnknownError, match=rf"^{HOST}:{catcher.port}: timed out"):
        send(replace(mailer, answer_timeout=SHORT), ADA)


@contextmanager
def scripted(*replies: bytes | None, listened: list[bytes] | None = None) -> Iterator[int]:
    """A server that says each reply to the next line it gets, the first to nobody's; ``None``
    says nothing for ever. After the last one it hangs up. Yields its port; ``listened`` gets
    the lines."""
    heard = [] if listened is None else listened
    listening = socket.create_server((HOST, 0))

    def converse() -> None:
        with closing(listening.accept()[0]) as peer, peer.makefile("rwb") as lines:
            for number, reply in enumerate(replies):
                if number:
                    heard.append(_next_command(lines))
                    if not heard[-1]:
                        return
                if reply is None:
                    peer.settimeout(5)
                    lines.read()
                    return
                lines.write(reply)
                lines.flush()

    server = Thread(target=converse)
    server.start()
    try:
        yield listening.getsockname()[1]
    finally:
        server.join(timeout=10)
        listening.close()
        assert not server.is_alive()


def _next_command(lines: Any) -> bytes:
    """The next command; a message, up to its lone dot, counts as one."""
    line: bytes = lines.readline()
    if line.startswith(b"Message-ID:"):
        while line not in {b".\r\n", b""}:
            line = lines.readline()
    return line


HELLO = (b"220 hello\r\n", b"250 hello\r\n")
OK = b"250 ok\r\n"
GO_AHEAD = b"354 go ahead\r\n"


def to_scripted(*replies: bytes | None) -> None:
    with scripted(*replies) as port:
        send(SmtpMailer(HOST, port, hello="us.example", timeout=SHORT, answer_timeout=SHORT), ADA)


@pytest.mark.parametrize(
    "replies",
    [
        (None,),  # accepts the connection and says nothing
        (b"554 go away\r\n",),
        (b"SSH-2.0-OpenSSH_9.2\r\n",),
        (b"220 hello\r\n", b"421 closing\r\n"),
        (b"220 hello\r\n", b"500 what?\r\n", b"500 what?\r\n"),
        (*HELLO, b"530 5.7.0 log in first\r\n", OK),
        (*HELLO, b"421 closing\r\n"),
        (*HELLO, OK, b"421 closing\r\n"),
        (*HELLO, OK, None),
        (*HELLO, OK, b"x" * 10_000 + b"\r\n"),
        (*HELLO, OK, OK, b"421 closing\r\n"),
        (*HELLO, OK, OK, b"250 not what we asked\r\n"),
        (*HELLO, OK, OK),
        (*HELLO, OK, OK, GO_AHEAD, b"421 closing\r\n"),
    ],
    ids=lambda replies: f"{len(replies)} {replies[-1]!r:.20}",
)
def test_a_server_that_cannot_take_mail_now_has_certainly_not_taken_it(
    replies: Sequence[bytes | None],
) -> None:
    with pytest.raises(MailServerUnavailableError) as error:
        to_scripted(*replies)
    assert "\n" not in str(error.value)


TAKES_SEVERAL = (b"220 hello\r\n", b"250-hello\r\n250 PIPELINING\r\n")


@pytest.mark.parametrize("before", [(), (OK,), (OK, OK)], ids=["MAIL", "RCPT", "DATA"])
def test_a_server_that_closes_at_one_of_several_commands_is_not_listened_to_any_more(
    before: tuple[bytes, ...],
) -> None:
    place = ("MAIL", "RCPT", "DATA")[len(before)]
    with pytest.raises(MailServerUnavailableError, match=rf"^{HOST}:\d+: SMTP 421 to {place}$"):
        to_scripted(*TAKES_SEVERAL, *before, b"421 closing\r\n", None)


@pytest.mark.parametrize(
    "replies",
    [(None,), (OK, None), (OK, OK, None), (OK, OK), (OK, OK, b"250 not what we asked\r\n")],
    ids=lambda replies: f"{len(replies)} {replies[-1]!r:.20}",
)
def test_before_the_message_itself_nothing_can_have_been_taken(
    replies: Sequence[bytes | None],
) -> None:
    with pytest.raises(MailServerUnavailableError) as error:
        to_scripted(*TAKES_SEVERAL, *replies)
    assert "\n" not in str(error.value)


def test_a_server_that_goes_ahead_without_a_reader_gets_a_mail_of_nothing() -> None:
    """RFC 2920, 3.1: the client then sends a single dot."""
    listened: list[bytes] = []
    refused = b"550 5.1.1 nobody\r\n"
    several = (OK, refused, GO_AHEAD, b"554 5.5.1 no readers\r\n")
    with (
        scripted(*TAKES_SEVERAL, *several, OK, listened=listened) as port,
        pytest.raises(MailRefusedError, match=rf"^{HOST}:\d+: SMTP 550 5\.1\.1 to RCPT$"),
    ):
        send(SmtpMailer(HOST, port, hello="us.example", timeout=SHORT), ADA)
    assert listened[1:6] == [
        f"MAIL FROM:<{US}>\r\n".encode(),
        f"RCPT TO:<{ADA}>\r\n".encode(),
        b"DATA\r\n",
        b".\r\n",
        b"rset\r\n",
    ]


@pytest.mark.parametrize(
    "answer", [b"what?\r\n", b"999 well\r\n", b"25", b"", b"x" * 10_000, None], ids=repr
)
def test_an_answer_to_the_message_that_says_nothing_leaves_its_fate_unknown(
    answer: bytes | None,
) -> None:
    with pytest.raises(MailFateUnknownError):
        to_scripted(*HELLO, OK, OK, GO_AHEAD, answer)


def test_a_server_that_refuses_to_go_ahead_has_refused_us() -> None:
    with pytest.raises(MailRefusesUsError, match=rf"^{HOST}:\d+: SMTP 554 5\.5\.1 to DATA$"):
        to_scripted(*HELLO, OK, OK, b"554 5.5.1 no valid recipients\r\n", OK, b"221 bye\r\n")


@pytest.fixture(scope="module")
def certificate(
    tmp_path_factory: pytest.TempPathFactory, missing_service: Callable[[str], NoReturn]
) -> Path:
    """A certificate for ``localhost`` that nobody trusts yet, with its key in the same file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        missing_service("no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    options = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", "key.pem", "-out", "certificate.pem"]
    command = [openssl, "req", *options, *names, *files]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    both = folder / "both.pem"
    parts = [(folder / f"{part}.pem").read_bytes() for part in ("key", "certificate")]
    both.write_bytes(b"".join(parts))
    return both


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))


class Kept(Message):
    """Keeps parsed messages in a list."""

    def __init__(self) -> None:
        super().__init__(ReceivedMail)
        self.mails: list[Any] = []

    def handle_message(self, message: Any) -> None:
        self.mails.append(message)


def log_in(*args: Any) -> AuthResult:
    data = args[-1]
    known = isinstance(data, LoginPassword) and data == LoginPassword(b"user", b"secret")
    return AuthResult(success=known, handled=False)


@contextmanager
def tls_server(certificate: Path, *, implicit: bool = False) -> Iterator[tuple[int, Kept]]:
    """A server that takes mail only after TLS and a login."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    kept = Kept()
    options: dict[str, Any] = (
        {"ssl_context": context, "auth_require_tls": False}
        if implicit
        else {"tls_context": context, "require_starttls": True}
    )
    with closing(socket.create_server((HOST, 0))) as reserved:
        port: int = reserved.getsockname()[1]
    controller = Controller(
        kept,
        hostname=HOST,
        port=port,
        authenticator=log_in,
        auth_required=not implicit,  # it only knows TLS that began with STARTTLS
        **options,
    )
    controller.start()
    try:
        yield port, kept
    finally:
        controller.stop()


def secure(port: int, tls: Tls = Tls.STARTTLS) -> SmtpMailer:
    return SmtpMailer(
        "localhost",
        port,
        hello="lessons.example",
        tls=tls,
        user="user",
        password="secret",
        timeout=5,
        answer_timeout=5,
    )


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("tls", [Tls.STARTTLS, Tls.IMPLICIT])
def test_mail_goes_over_verified_tls_after_a_login(certificate: Path, tls: Tls) -> None:
    with tls_server(certificate, implicit=tls is Tls.IMPLICIT) as (port, kept):
        assert send(secure(port, tls), ADA) == [True]
    assert [mail["Subject"] for mail in kept.mails] == ["Guitar"]


@pytest.mark.parametrize("tls", [Tls.STARTTLS, Tls.IMPLICIT])
def test_a_certificate_that_nobody_vouches_for_gets_no_mail(certificate: Path, tls: Tls) -> None:
    with tls_server(certificate, implicit=tls is Tls.IMPLICIT) as (port, kept):
        with pytest.raises(
            MailServerUnavailableError, match=rf"^localhost:{port}: certificate not valid: self"
        ):
            send(secure(port, tls), ADA)
        assert kept.mails == []


@pytest.mark.usefixtures("trusted")
def test_a_certificate_for_another_host_gets_no_mail(certificate: Path) -> None:
    with tls_server(certificate) as (port, kept):
        with pytest.raises(MailServerUnavailableError, match="not valid"):
            send(replace(secure(port), host=HOST), ADA)
        assert kept.mails == []


@pytest.mark.usefixtures("trusted")
def test_a_wrong_password_is_for_the_operator_to_mend_and_is_not_repeated(
    certificate: Path,
) -> None:
    with tls_server(certificate) as (port, _):
        with pytest.raises(MailServerUnavailableError) as error:
            send(replace(secure(port), password="wrong"), ADA)
        assert str(error.value) == f"localhost:{port}: SMTP 535 5.7.8 to AUTH"
        with pytest.raises(MailServerUnavailableError):
            send(replace(secure(port), password="pässword"), ADA)


def test_a_server_without_tls_never_sees_the_password(catcher: MailCatcher) -> None:
    with pytest.raises(MailServerUnavailableError, match="SMTPNotSupportedError"):
        send(secure(catcher.port), ADA)


def test_the_wait_for_a_silent_server_has_an_end() -> None:
    began = time.monotonic()
    with pytest.raises(MailServerUnavailableError, match="timed out"):
        to_scripted(None)
    assert time.monotonic() - began < 10 * SHORT
