"""Mail to an SMTP server (RFC 5321), by the standard library's client."""

import re
import smtplib
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum

from app import db
from app.adapters.mailer import (
    MailConnection,
    MailFateUnknownError,
    MailRefusedError,
    MailRefusesUsError,
    MailServerUnavailableError,
    MailTemporarilyRefusedError,
    check_address,
    describe_reply,
    enhanced_code,
)
from app.adapters.smtp_client import SmtpClient, TlsSmtpClient

GO_AHEAD = 354
CLOSING = 421
"""The server closes the connection after this reply, to whatever command (RFC 5321, 3.8)."""
LOGIN_REQUIRED = 530
"""Says something about our settings, nothing about the mail (RFC 4954, 6)."""
BAD_SEQUENCE = 503
"""The server believes that a command before was refused (RFC 5321, 4.3.2), which it was not."""

_ABOUT_SENDER = re.compile(r"5\.1\.[78]")
"""Bad sender's mailbox or system address (RFC 3463, 3.2), to whatever command."""
_ABOUT_READER = re.compile(r"5\.(1\.[1236]|2\.\d+)")
"""Bad destination's address, or its mailbox (RFC 3463, 3.2 and 3.3)."""


class Blame(StrEnum):
    """Whom a permanent refusal (5xx) is about."""

    US = "us"
    """``MailRefusesUsError``: no mail would get further, and none is given up."""
    MAIL = "this mail"
    """``MailRefusedError``: it is given up, and the next one is sent."""


BLAME = {
    # 554 "no SMTP service here" (RFC 5321, 3.1): nothing of a mail has been said.
    "the connection": Blame.US,
    # The name that we greet with (4.1.1.1, 4.3.2).
    "EHLO": Blame.US,
    # TLS is our setting (RFC 3207, 4), and so is the password (RFC 4954, 6).
    "STARTTLS": Blame.US,
    "AUTH": Blame.US,
    # It names our sender alone, the same for every mail (3.3, 4.1.1.2).
    "MAIL": Blame.US,
    # It names the reader (3.3, 4.1.1.3).
    "RCPT": Blame.MAIL,
    # The sender and the reader were accepted, and no byte of the mail was sent (3.3, 4.1.1.4).
    "DATA": Blame.US,
    # The server has read the mail (3.3, 4.2.5).
    "the message": Blame.MAIL,
}
"""The side at fault when the server refuses for good, by the stage.

A reply with ``LOGIN_REQUIRED``, ``BAD_SEQUENCE`` or a code about the sender is about us at each
stage; one to DATA with a code about the reader is about the mail. Any 421 closes the connection
(3.8), and 4xx says that a later attempt may succeed (4.2.1): before MAIL to no mail, then to this
one.
"""


class Tls(StrEnum):
    NONE = "none"
    STARTTLS = "starttls"
    """RFC 3207; a server that does not offer it gets no mail."""
    IMPLICIT = "implicit"
    """From the first byte (RFC 8314)."""


@dataclass(frozen=True)
class SmtpMailer:
    """Certificates are verified against the system's authorities (or ``SSL_CERT_FILE``).

    Each error names the server's host and port first.
    """

    host: str
    port: int
    hello: str
    """The name we greet with. Always ours to give: the library would look it up in the DNS,
    without a bound on the wait."""
    tls: Tls = Tls.NONE
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    timeout: float = 10.0
    """Seconds, for each whole reply and each thing sent, but for the next one."""
    answer_timeout: float = 80.0
    """Seconds to wait for the answer to a whole mail. Who gives up here and sends it again
    doubles it, so it is long (RFC 5321, 4.5.3.2.6, wants ten minutes)."""
    delivery_timeout: float = 120.0
    """Seconds to open a connection, and again for each mail over it, however many replies."""

    def check(self) -> None:
        """Nothing to mend before the start: a server that is away now may answer later."""

    @contextmanager
    def open(self) -> Iterator[MailConnection]:
        db.refuse_network_in_transaction()
        client = self._connect()
        try:
            yield _Connection(
                client,
                place=self.place,
                answer_timeout=self.answer_timeout,
                timeout=self.timeout,
                delivery_timeout=self.delivery_timeout,
            )
            with suppress(smtplib.SMTPException, OSError):
                client.allow(self.timeout)
                client.quit()
        finally:
            client.close()

    @property
    def place(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def _connect(self) -> SmtpClient:
        client: SmtpClient | None = None
        try:
            client = self._greet()
            client.ehlo_or_helo_if_needed()
            if self.tls is Tls.STARTTLS:
                client.starttls(context=ssl.create_default_context())
                client.ehlo_or_helo_if_needed()
            if self.user is not None:
                client.login(self.user, self.password or "")
        # ValueError: a host or password beyond ASCII.
        except (smtplib.SMTPException, OSError, ValueError) as error:
            if client is not None:
                client.close()
            refused = (
                isinstance(error, smtplib.SMTPResponseException)
                and 500 <= error.smtp_code < 600
                and BLAME[_stage(error)] is Blame.US
            )
            kind = MailRefusesUsError if refused else MailServerUnavailableError
            raise kind(f"{self.place}: {_why(error)}") from error
        return client

    def _greet(self) -> SmtpClient:
        kind, options = SmtpClient, {}
        if self.tls is Tls.IMPLICIT:
            kind, options = TlsSmtpClient, {"context": ssl.create_default_context()}
        return kind(
            self.host,
            self.port,
            within=self.delivery_timeout,
            local_hostname=self.hello,
            timeout=self.timeout,
            **options,
        )


class _Connection:
    def __init__(
        self,
        client: SmtpClient,
        *,
        place: str,
        timeout: float,
        answer_timeout: float,
        delivery_timeout: float,
    ) -> None:
        self._client = client
        self._place = place
        self._timeout = timeout
        self._answer_timeout = answer_timeout
        self._delivery_timeout = delivery_timeout

    def send(
        self,
        write: Callable[[], bytes],
        *,
        sender: str,
        recipient: str,
        proceed: Callable[[float], bool],
    ) -> bool:
        db.refuse_network_in_transaction()
        check_address(recipient)
        self._client.allow(self._delivery_timeout)
        several = self._client.has_extn("pipelining")
        if several:
            commands = (f"MAIL FROM:<{sender}>", f"RCPT TO:<{recipient}>", "DATA")
            self._say("\r\n".join(commands), to=commands[0])
            message = self._written(write)
            self._listen_to_all(commands)
            ahead = 0.0
        else:
            message = self._written(write)
            self._ask(f"MAIL FROM:<{sender}>")
            self._ask(f"RCPT TO:<{recipient}>")
            ahead = self._timeout
        if not proceed(ahead):
            self._client.close()  # nothing else takes a DATA back
            return False
        if not several:
            self._ask("DATA")
        code, text = self._transmit(message)
        if code == CLOSING:
            self._client.close()
        if not 200 <= code < 300:
            raise self._refusal(code, text, to="the message")
        return True

    def _ask(self, command: str) -> None:
        self._say(command, to=command)
        code, text = self._listen(command)
        if not _is_agreed(command, code):
            raise self._refusal(code, text, to=_verb(command))

    def _written(self, write: Callable[[], bytes]) -> bytes:
        try:
            return write()
        except BaseException:
            self._client.close()  # its answers would be taken for those to the next mail
            raise

    def _listen_to_all(self, commands: Sequence[str]) -> None:
        """The answers to commands that went in one packet: one wait instead of one for each
        (RFC 2920)."""
        refused: tuple[int, bytes, str] | None = None
        for command in commands:
            code, text = self._listen(command)
            if refused is None and not _is_agreed(command, code):
                refused = code, text, _verb(command)
            if code == CLOSING:
                break
        if refused is None:
            return
        if code == GO_AHEAD:
            self._send_nothing()
        code, text, verb = refused
        raise self._refusal(code, text, to=verb)

    def _send_nothing(self) -> None:
        # RFC 2920, 3.1, where the server goes ahead although it refused the only reader. If it
        # fails, the next mail will notice.
        with suppress(smtplib.SMTPException, OSError):
            self._client.docmd(".")

    def _say(self, text: str, *, to: str) -> None:
        try:
            self._client.send(f"{text}\r\n")
        except (smtplib.SMTPException, OSError) as error:
            raise self._gone(error, at=_verb(to)) from error

    def _listen(self, command: str) -> tuple[int, bytes]:
        try:
            return self._client.getreply()
        except (smtplib.SMTPException, OSError) as error:
            raise self._gone(error, at=_verb(command)) from error

    def _gone(self, error: Exception, *, at: str) -> MailServerUnavailableError:
        self._client.close()
        return MailServerUnavailableError(f"{self._place}: {_why(error)} at {at}")

    def _transmit(self, message: bytes) -> tuple[int, bytes]:
        try:
            self._client.hand_over(_with_dots_stuffed(message) + b".\r\n")
        except (smtplib.SMTPException, OSError) as error:
            # Without its final dot no server takes a message (RFC 5321, 4.1.1.4).
            raise self._gone(error, at="the message") from error
        # From here on a broken connection leaves the mail's fate unknown: what the system
        # has taken over from us may arrive whole after an error.
        self._client.patience = self._answer_timeout
        try:
            code, text = self._client.getreply()
            if not 200 <= code < 600:
                raise smtplib.SMTPResponseException(code, text)
        except (smtplib.SMTPException, OSError) as error:
            self._client.close()
            raise MailFateUnknownError(f"{self._place}: {_why(error)} after the message") from error
        self._client.patience = self._timeout
        return code, text

    def _refusal(self, code: int, text: bytes, *, to: str) -> Exception:
        described = f"{self._place}: {describe_reply(code, text, to=to)}"
        if code == CLOSING or not 400 <= code < 600:
            self._client.close()
            return MailServerUnavailableError(described)
        if code >= 500 and _blame(code, text, to=to) is Blame.US:
            self._client.close()
            return MailRefusesUsError(described)
        self._reset()
        if code < 500:
            return MailTemporarilyRefusedError(described)
        return MailRefusedError(described)

    def _reset(self) -> None:
        # If it fails, the next mail will notice.
        with suppress(smtplib.SMTPException, OSError):
            self._client.rset()


def _blame(code: int, text: bytes, *, to: str) -> Blame:
    enhanced = enhanced_code(text)
    if code in {LOGIN_REQUIRED, BAD_SEQUENCE} or _ABOUT_SENDER.fullmatch(enhanced):
        return Blame.US
    if to == "DATA" and _ABOUT_READER.fullmatch(enhanced):
        return Blame.MAIL
    return BLAME[to]


def _verb(command: str) -> str:
    return command.partition(" ")[0]


def _is_agreed(command: str, code: int) -> bool:
    return code == GO_AHEAD if command == "DATA" else 200 <= code < 300


def _with_dots_stuffed(message: bytes) -> bytes:
    """RFC 5321, 4.5.2: a dot that begins a line is doubled; the last line ends."""
    stuffed = message
    if message.startswith(b".") or b"\n." in message:  # much sooner told than replaced
        stuffed = re.sub(rb"(?m)^\.", b"..", message)
    return stuffed if stuffed.endswith(b"\r\n") else stuffed + b"\r\n"


def _why(error: Exception) -> str:
    """What went wrong, without the server's words."""
    if isinstance(error, smtplib.SMTPResponseException):
        text = error.smtp_error
        reply = text if isinstance(text, bytes) else text.encode(errors="replace")
        return describe_reply(error.smtp_code, reply, to=_stage(error))
    if isinstance(error, smtplib.SMTPServerDisconnected) and isinstance(error.__context__, OSError):
        return _why(error.__context__)
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not valid: {error.verify_message}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__


def _stage(error: smtplib.SMTPResponseException) -> str:
    """The stage before MAIL at which a server refused. smtplib has no error of its own for TLS."""
    return _STAGES.get(type(error), "STARTTLS")


_STAGES = {
    smtplib.SMTPConnectError: "the connection",
    smtplib.SMTPHeloError: "EHLO",
    smtplib.SMTPAuthenticationError: "AUTH",
}
