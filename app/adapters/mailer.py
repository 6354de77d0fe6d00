"""What the use cases ask of a mailer, and how sending can fail."""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from app.domain.errors import PermanentError, TransientError

_ADDRESS = re.compile(r"[!-~]+@[!-~]+")
_ENHANCED_CODE = re.compile(rb"[245]\.\d{1,3}\.\d{1,3}(?=\s|$)")


class MailServerUnavailableError(TransientError):
    """No mail can be sent at present. The one in hand was certainly not accepted."""


class MailRefusesUsError(MailServerUnavailableError):
    """The server refuses our host, login or sender (5xx), so it would refuse any mail.

    An operator has to change a setting, or to ask the provider. No mail is at fault.
    """


class MailTemporarilyRefusedError(TransientError):
    """The server does not take this mail now (4xx); others may go through."""


class MailFateUnknownError(TransientError):
    """The connection broke between the mail's last byte and the server's answer.

    Nobody knows whether the mail was accepted (RFC 1047).
    """


class MailRefusedError(PermanentError):
    """The server will never take this mail (5xx)."""


class MailerNotReadyError(Exception):
    """Mail cannot go where the setting says; the message is one line with what to do."""


class MailConnection(Protocol):
    def send(
        self,
        write: Callable[[], bytes],
        *,
        sender: str,
        recipient: str,
        proceed: Callable[[float], bool],
    ) -> bool:
        """Send one mail; whether the server accepted it.

        ``write`` returns the message, with CRLF line ends (RFC 5322); it may be called while
        the server thinks about the mail's sender and reader. What it raises is raised, and
        nothing is sent.

        ``proceed`` is asked at the last moment at which the mail can still be withheld, with
        the seconds that may pass from there to the message itself; where it says no, nothing
        is sent and the answer is false. Raises the errors of this module.

        A connection is of no more use when it has withheld a mail, or raised what ``write``
        raises, ``MailServerUnavailableError`` or ``MailFateUnknownError``.
        """


class Mailer(Protocol):
    @property
    def place(self) -> str:
        """Where mail goes, for errors: a host and port, or a folder."""

    def check(self) -> None:
        """Raise ``MailerNotReadyError`` where a person has to mend something first."""

    def open(self) -> AbstractContextManager[MailConnection]:
        """Connect. Raises ``MailServerUnavailableError``."""


def check_address(address: str) -> None:
    """Refuse what is no ASCII address in one word, before it gets into a command or header.

    Addresses beyond ASCII need a server with SMTPUTF8 (RFC 6531), which is not supported.
    The message does not repeat the address.
    """
    if not _ADDRESS.fullmatch(address) or any(sign in address for sign in "<>,"):
        raise MailRefusedError("the address cannot be used")


def enhanced_code(text: bytes) -> str:
    """Return the code of RFC 3463 that a reply's text begins with, such as 5.1.1; or nothing."""
    found = _ENHANCED_CODE.match(text)
    return found[0].decode() if found else ""


def describe_reply(code: int, text: bytes, *, to: str) -> str:
    """A server's refusal without its words, which may repeat the reader's address.

    Example: ``SMTP 550 5.1.1 to RCPT`` (the second number is the code of RFC 3463).
    """
    enhanced = enhanced_code(text)
    middle = f" {enhanced}" if enhanced else ""
    return f"SMTP {code}{middle} to {to}"
