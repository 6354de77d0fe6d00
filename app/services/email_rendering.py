"""From what a mail says to the bytes that go to the server."""

from datetime import datetime
from email.charset import QP, Charset
from email.header import Header
from email.mime.multipart import MIMEMultipart
from email.mime.nonmultipart import MIMENonMultipart
from email.policy import Compat32
from email.utils import format_datetime, formataddr, parseaddr
from functools import cache, lru_cache

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from app.adapters.mailer import check_address
from app.services.email_letters import Letter
from app.services.email_letters.wording import one_line
from app.settings import Settings

UNSUBSCRIBE_PATH = "/settings/notifications"
"""On the marketplace's web site."""

LONGEST_LINE = 78
"""Signs, without the line end (RFC 5322, 2.1.1)."""


def _fits(header: str, text: str) -> bool:
    """Whether a header's text stays as it is, on one line."""
    return (
        len(header) + 2 + len(text) <= LONGEST_LINE
        and text.isascii()
        and text.isprintable()
        and text == text.strip()
    )


class _ShortHeaders(Compat32):
    """The library's policy, which looks for a place to fold only where there is a need.

    It took half of the time of a mail: all headers that come here are encoded already, and
    nearly all are short.
    """

    def fold_binary(self, name: str, value: str) -> bytes:
        if _fits(name, value):
            return f"{name}: {value}{self.linesep}".encode("ascii")
        return super().fold_binary(name, value)


SHORT_HEADERS = _ShortHeaders(linesep="\r\n")

_QUOTED_PRINTABLE = Charset("utf-8")
_QUOTED_PRINTABLE.body_encoding = QP


def render(letter: Letter, *, settings: Settings, now: datetime) -> bytes:
    """The mail as RFC 5322 has it: a text and an HTML part, CRLF line ends, 7-bit clean.

    The same letter at the same instant gives the same bytes. Names are untrusted: they
    cannot add a header, a line or HTML. Raises ``MailRefusedError`` for an address that
    cannot be used.
    """
    check_address(letter.reader_address)
    reader, subject = one_line(letter.reader_name), letter.subject
    unsubscribe = settings.public_url + UNSUBSCRIBE_PATH if letter.can_be_unsubscribed else None
    facts = {
        **letter.facts(settings),
        "reader": reader,
        "subject": subject,
        "site": settings.public_url,
        "unsubscribe": unsubscribe,
    }
    mail = MIMEMultipart("alternative", boundary=_boundary(letter))
    mail["From"] = _sender(settings.mail_from)
    mail["To"] = _mailbox("To", reader, letter.reader_address)
    mail["Subject"] = _encoded("Subject", subject)
    mail["Date"] = format_datetime(now)
    mail["Message-ID"] = message_id(letter, settings)
    if unsubscribe:
        mail["List-Unsubscribe"] = f"<{unsubscribe}>"  # RFC 2369
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office answers, please
    for subtype, extension in (("plain", "txt"), ("html", "html")):
        body = _templates().get_template(f"email/{letter.template}.{extension}").render(facts)
        part = MIMENonMultipart("text", subtype, charset="utf-8")
        # What set_payload(body, charset) does, which reads the header again to find its place.
        part["Content-Transfer-Encoding"] = "quoted-printable"
        part.set_payload(_QUOTED_PRINTABLE.body_encode(body.encode()))
        mail.attach(part)
    return mail.as_bytes(policy=SHORT_HEADERS)


def message_id(letter: Letter, settings: Settings) -> str:
    """The same for every copy of this mail, so that mailboxes and people can tell a double.

    RFC 5322, 3.6.4.
    """
    return f"<{letter.key}@{_domain(settings.mail_from)}>"


@lru_cache(maxsize=8)
def _domain(mail_from: str) -> str:
    return parseaddr(mail_from)[1].rpartition("@")[2]


@lru_cache(maxsize=8)
def _sender(mail_from: str) -> str:
    return _mailbox("From", *parseaddr(mail_from))


def _mailbox(header: str, name: str, address: str) -> str:
    if _is_plain(name):
        return formataddr((name, address))
    return f"{_encoded(header, name)} <{address}>"


def _encoded(header: str, text: str) -> str:
    plain = _is_plain(text)
    if plain and _fits(header, text):
        return text
    charset = "us-ascii" if plain else "utf-8"
    return Header(text, charset, header_name=header).encode()


def _is_plain(text: str) -> bool:
    # What looks like an encoded word is encoded too, so that no reader decodes it again.
    return text.isascii() and "=?" not in text


def _boundary(letter: Letter) -> str:
    # "=_" cannot occur in a quoted-printable body (RFC 2045, 6.7).
    return f"=_{letter.key}"


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("app"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
