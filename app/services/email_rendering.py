"""From what a mail says to the bytes that go to the server."""

from datetime import datetime
from email.header import Header
from email.utils import format_datetime, formataddr, parseaddr
from functools import cache, lru_cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template, select_autoescape

from app.adapters.mailer import check_address
from app.services.email_letters import Letter
from app.services.email_letters.wording import untrusted
from app.services.email_mime import alternatives, fits
from app.settings import Settings

UNSUBSCRIBE_PATH = "/settings/notifications"
"""On the marketplace's web site."""


def render(letter: Letter, *, settings: Settings, now: datetime) -> bytes:
    """The mail as RFC 5322 has it: a text and an HTML part, CRLF line ends, 7-bit clean.

    The same letter at the same instant gives the same bytes. Names are untrusted: they
    cannot add a header, a line or HTML. Raises ``MailRefusedError`` for an address that
    cannot be used.
    """
    check_address(letter.reader_address)
    reader, subject = untrusted(letter.reader_name), letter.subject
    unsubscribe = settings.public_url + UNSUBSCRIBE_PATH if letter.can_be_unsubscribed else None
    facts = {
        **letter.facts(settings),
        "reader": reader,
        "subject": subject,
        "site": settings.public_url,
        "unsubscribe": unsubscribe,
    }
    headers = {
        "From": _sender(settings.mail_from),
        "To": _mailbox("To", reader, letter.reader_address),
        "Subject": _encoded("Subject", subject),
        "Date": format_datetime(now),
        "Message-ID": message_id(letter.key, settings),
    }
    if unsubscribe:
        headers["List-Unsubscribe"] = f"<{unsubscribe}>"  # RFC 2369
    headers["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office answers, please
    bodies = {
        subtype: _template(f"email/{letter.template}.{extension}").render(facts)
        for subtype, extension in (("plain", "txt"), ("html", "html"))
    }
    return alternatives(headers, bodies, boundary=_boundary(letter))


def message_id(key: str, settings: Settings) -> str:
    """The Message-ID of the mail with this key (RFC 5322, 3.6.4).

    It is the same for every copy, so that mailboxes and people recognize a duplicate.
    """
    return f"<{key}@{_domain(settings.mail_from)}>"


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
    if plain and fits(header, text):
        return text
    charset = "us-ascii" if plain else "utf-8"
    return Header(text, charset, header_name=header).encode()


def _is_plain(text: str) -> bool:
    # What looks like an encoded word is encoded too, so that no reader decodes it again.
    return text.isascii() and "=?" not in text


def _boundary(letter: Letter) -> str:
    return f"=_{letter.key}"


@cache
def _template(name: str) -> Template:
    return _templates().get_template(name)


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
