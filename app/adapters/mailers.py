"""The mailer that the settings name."""

from email.utils import parseaddr
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from app.adapters.maildir import MaildirMailer
from app.adapters.mailer import Mailer
from app.adapters.smtp import SmtpMailer, Tls
from app.settings import SMTP_WAITS_IN_A_LEASE, Settings, SettingsError

PORTS = {Tls.NONE: 25, Tls.STARTTLS: 587, Tls.IMPLICIT: 465}


def mailer_from(settings: Settings) -> Mailer:
    """The mailer behind ``SMTP_URL``; nothing is connected or written yet.

    * ``smtp://user:password@host:port?tls=starttls`` or ``tls=none``. Without ``tls``, a
      password is sent over STARTTLS only, and mail without a password in the clear.
    * ``smtps://user:password@host:port``: TLS from the first byte.
    * ``maildir:folder``, relative to the working directory, or ``maildir:/folder``.

    User and password are percent-encoded where they hold ``:/?#@``. Raises
    ``SettingsError``; the URL is not repeated, it may hold a password.
    """
    parts = urlsplit(settings.smtp_url.get_secret_value())
    if parts.scheme == "maildir":
        if parts.netloc or not parts.path.strip("/"):
            raise _wrong("it must name a folder after the colon", "maildir:var/mail")
        return MaildirMailer(Path(unquote(parts.path)))
    example = "smtp://user:password@mail.example:587?tls=starttls"
    if not parts.hostname:
        raise _wrong("it names no host", example)
    if parts.path.strip("/"):
        raise _wrong("it has a path after the host", example)
    options = parse_qsl(parts.query, keep_blank_values=True)
    if any(name != "tls" for name, _ in options):
        # The other's name is not repeated: it may be a password without its "%3F".
        raise _wrong("its only option is tls=", example)
    if len(options) > 1:
        raise _wrong("tls= stands there twice", example)
    tls = _tls(parts.scheme, dict(options).get("tls"), with_password=parts.username is not None)
    return SmtpMailer(
        host=parts.hostname,
        port=parts.port or PORTS[tls],
        hello=sender_address(settings).rpartition("@")[2],
        tls=tls,
        user=None if parts.username is None else unquote(parts.username),
        password=None if parts.password is None else unquote(parts.password),
        timeout=settings.smtp_timeout_seconds,
        answer_timeout=answer_timeout(settings),
        delivery_timeout=settings.mail_lease_seconds,
    )


def sender_address(settings: Settings) -> str:
    """The address of ``MAIL_FROM``, without the name."""
    return parseaddr(settings.mail_from)[1]


def answer_timeout(settings: Settings) -> float:
    """Seconds: what a claimed mail's lease leaves for the server's answer to the whole mail."""
    return settings.mail_lease_seconds - (SMTP_WAITS_IN_A_LEASE - 1) * settings.smtp_timeout_seconds


def _tls(scheme: str, option: str | None, *, with_password: bool) -> Tls:
    if scheme == "smtps":
        if option is not None:
            raise _wrong("smtps: has TLS already, leave tls= out", "smtps://mail.example:465")
        return Tls.IMPLICIT
    if option is None:
        return Tls.STARTTLS if with_password else Tls.NONE
    if option not in {Tls.NONE, Tls.STARTTLS}:
        raise _wrong("tls= is neither starttls nor none", "smtp://mail.example:587?tls=starttls")
    return Tls(option)


def _wrong(reason: str, example: str) -> SettingsError:
    return SettingsError(f"SMTP_URL: {reason}; for example SMTP_URL={example}")
