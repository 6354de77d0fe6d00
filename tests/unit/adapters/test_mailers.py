import pytest
from pydantic import SecretStr

from app.adapters.maildir import MaildirMailer
from app.adapters.mailers import answer_timeout, mailer_from, sender_address
from app.adapters.smtp import SmtpMailer, Tls
from app.settings import SMTP_WAITS_IN_A_LEASE, Settings, SettingsError


def mailer(url: str) -> object:
    return mailer_from(Settings(smtp_url=SecretStr(url)))


def smtp(url: str) -> SmtpMailer:
    made = mailer(url)
    assert isinstance(made, SmtpMailer)
    return made


@pytest.mark.parametrize(
    ("url", "tls", "port"),
    [
        ("smtp://mail.example", Tls.NONE, 25),
        ("smtp://mail.example:2525", Tls.NONE, 2525),
        ("smtp://mail.example?tls=starttls", Tls.STARTTLS, 587),
        ("smtp://user:secret@mail.example", Tls.STARTTLS, 587),
        ("smtp://user:secret@mail.example:25?tls=none", Tls.NONE, 25),
        ("smtps://user:secret@mail.example", Tls.IMPLICIT, 465),
    ],
)
def test_the_url_says_how_safe_the_way_is_and_a_password_goes_in_the_clear_only_if_told_so(
    url: str, tls: Tls, port: int
) -> None:
    made = smtp(url)
    assert (made.host, made.tls, made.port) == ("mail.example", tls, port)


def test_user_and_password_are_percent_decoded() -> None:
    made = smtp("smtps://me%40mail.example:p%3A%2F%3F%23@mail.example")
    assert (made.user, made.password) == ("me@mail.example", "p:/?#")


def test_a_mailer_never_shows_its_password() -> None:
    assert "secret" not in repr(smtp("smtps://user:secret@mail.example"))


@pytest.mark.parametrize("url", ["maildir:var/mail", "maildir:/var/mail", "maildir:///var/mail"])
def test_a_maildir_url_names_a_folder(url: str) -> None:
    assert isinstance(mailer(url), MaildirMailer)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("maildir:", "name a folder"),
        ("maildir:/", "name a folder"),
        ("maildir://var/mail", "name a folder"),
        ("smtp:", "names no host"),
        ("smtp://user:secret@", "names no host"),
        ("smtp://mail.example/path", "path after the host"),
        ("smtp://mail.example?tls=yes", "neither starttls nor none"),
        ("smtp://mail.example?ssl=1", "its only option is tls="),
        ("smtp://mail.example?secret", "its only option is tls="),
        ("smtp://mail.example?tls=starttls&tls=none", "tls= stands there twice"),
        ("smtps://user:secret@mail.example?tls=none", "has TLS already"),
    ],
)
def test_a_wrong_url_is_one_line_with_the_variable_and_an_example(url: str, reason: str) -> None:
    with pytest.raises(SettingsError) as wrong:
        mailer(url)
    message = str(wrong.value)
    assert message.startswith("SMTP_URL: ")
    assert reason in message
    assert "for example SMTP_URL=" in message
    assert "\n" not in message
    assert "secret" not in message


def test_the_greeting_is_the_senders_domain() -> None:
    settings = Settings(mail_from="Lessons <hello@lessons.example>")
    assert sender_address(settings) == "hello@lessons.example"
    made = mailer_from(settings.model_copy(update={"smtp_url": SecretStr("smtp://mail.example")}))
    assert isinstance(made, SmtpMailer)
    assert made.hello == "lessons.example"


def test_all_waits_of_a_mail_fit_into_its_lease() -> None:
    settings = Settings(smtp_timeout_seconds=7, mail_lease_seconds=100)
    waits = (SMTP_WAITS_IN_A_LEASE - 1) * settings.smtp_timeout_seconds
    assert waits + answer_timeout(settings) == settings.mail_lease_seconds
    assert answer_timeout(settings) >= settings.smtp_timeout_seconds


def test_the_smallest_lease_that_is_allowed_leaves_the_answer_a_whole_wait() -> None:
    settings = Settings(smtp_timeout_seconds=7, mail_lease_seconds=7 * SMTP_WAITS_IN_A_LEASE)
    assert answer_timeout(settings) == settings.smtp_timeout_seconds
