import sys
from dataclasses import replace
from datetime import UTC, datetime
from email.header import decode_header, make_header
from email.message import EmailMessage as ReceivedMail
from email.parser import BytesParser
from email.policy import compat32
from unicodedata import category

import pytest

from app.adapters.mailer import MailRefusedError
from app.models import EmailKind
from app.services.email_letters import DigestLetter, LessonLetter, Letter, Unread
from app.services.email_letters.lesson import SUBJECTS
from app.services.email_letters.wording import dollars, one_line, untrusted
from app.services.email_rendering import render
from app.settings import Settings
from tests.builders import NOON
from tests.mailers import parsed

SETTINGS = Settings(
    mail_from="InstaInstru <no-reply@lessons.example>", public_url="https://lessons.example"
)
HEADERS = {
    "Content-Type",
    "MIME-Version",
    "From",
    "To",
    "Subject",
    "Date",
    "Message-ID",
    "List-Unsubscribe",
    "Auto-Submitted",
}

LETTER = LessonLetter(
    kind=EmailKind.BOOKING_CONFIRMATION,
    subject_id=12,
    recipient_id=3,
    reader_name="Ada Lovelace",
    reader_address="ada@people.example",
    reader_zone="America/New_York",
    reader_teaches=False,
    student_name="Ada Lovelace",
    instructor_name="Bob Dylan",
    service_name="Guitar",
    starts_at=datetime(2026, 7, 1, 14, 0, tzinfo=UTC),
    minutes=60,
    price_cents=4_500,
    student_came=True,
    instructor_came=False,
)


def received(letter: Letter) -> ReceivedMail:
    return parsed(render(letter, settings=SETTINGS, now=NOON))


def parts(mail: ReceivedMail) -> tuple[str, str]:
    text, html = mail.iter_parts()
    assert isinstance(text, ReceivedMail)
    assert isinstance(html, ReceivedMail)
    assert (text.get_content_type(), html.get_content_type()) == ("text/plain", "text/html")
    return text.get_content(), html.get_content()


@pytest.mark.parametrize(
    ("kind", "teaches", "sentence"),
    [
        (EmailKind.BOOKING_CONFIRMATION, False, "your lesson with Bob Dylan is confirmed."),
        (EmailKind.BOOKING_CONFIRMATION, True, "Ada Lovelace has booked a lesson with you"),
        (EmailKind.BOOKING_CANCELLATION, False, "your lesson with Bob Dylan is cancelled."),
        (EmailKind.BOOKING_CANCELLATION, True, "your lesson with Ada Lovelace is cancelled."),
        (EmailKind.REMINDER_24H, False, "your lesson with Bob Dylan is coming up."),
        (EmailKind.REMINDER_24H, True, "your lesson with Ada Lovelace is coming up."),
        (EmailKind.REMINDER_1H, False, "your lesson with Bob Dylan begins soon."),
        (EmailKind.REMINDER_1H, True, "your lesson with Ada Lovelace begins soon."),
    ],
)
def test_each_side_reads_about_the_other_one_in_both_parts(
    kind: EmailKind, teaches: bool, sentence: str
) -> None:
    for part in parts(received(replace(LETTER, kind=kind, reader_teaches=teaches))):
        assert sentence in part
        assert "Guitar" in part
        assert "60 minutes" in part
        assert "$45.00" in part


@pytest.mark.parametrize(
    ("student_came", "instructor_came", "teaches", "sentence"),
    [
        (False, True, False, "you did not check in to your lesson with Bob Dylan, who was there."),
        (False, True, True, "Ada Lovelace did not check in to your lesson."),
        (True, False, False, "Bob Dylan did not check in to your lesson."),
        (True, False, True, "you did not check in to your lesson with Ada Lovelace, who was"),
        (False, False, False, "neither you nor Bob Dylan checked in to your lesson."),
        (False, False, True, "neither you nor Ada Lovelace checked in to your lesson."),
        (True, True, False, "your lesson with Bob Dylan is recorded as one that did not"),
        (True, True, True, "your lesson with Ada Lovelace is recorded as one that did not"),
    ],
)
def test_a_no_show_notice_says_who_did_not_come(
    student_came: bool, instructor_came: bool, teaches: bool, sentence: str
) -> None:
    letter = replace(
        LETTER,
        kind=EmailKind.NO_SHOW,
        reader_teaches=teaches,
        student_came=student_came,
        instructor_came=instructor_came,
    )
    for part in parts(received(letter)):
        assert sentence in part


@pytest.mark.parametrize("kind", list(SUBJECTS))
def test_the_subject_says_what_it_is_and_when(kind: EmailKind) -> None:
    assert str(received(replace(LETTER, kind=kind))["Subject"]).endswith(
        ": Guitar, Wednesday, 1 July 2026, 10:00 EDT"
    )


@pytest.mark.parametrize(
    ("zone", "starts_at", "shown"),
    [
        (
            "America/New_York",
            datetime(2026, 1, 1, 3, tzinfo=UTC),
            "Wednesday, 31 December 2025, 22:00 EST",
        ),
        ("Europe/Berlin", datetime(2026, 7, 1, 14, tzinfo=UTC), "16:00 CEST"),
        ("Asia/Kathmandu", datetime(2026, 7, 1, 14, tzinfo=UTC), "19:45 UTC+0545"),
        ("America/Sao_Paulo", datetime(2026, 7, 1, 14, tzinfo=UTC), "11:00 UTC-03"),
        # The repeated hour of the autumn: the abbreviation tells the two apart.
        ("US/Eastern", datetime(2026, 11, 1, 5, 30, tzinfo=UTC), "01:30 EDT"),
        ("US/Eastern", datetime(2026, 11, 1, 6, 30, tzinfo=UTC), "01:30 EST"),
    ],
)
def test_times_are_in_the_readers_zone_and_name_it(
    zone: str, starts_at: datetime, shown: str
) -> None:
    for part in parts(received(replace(LETTER, reader_zone=zone, starts_at=starts_at))):
        assert shown in part


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "/etc/passwd", "America", "a\0b"])
def test_a_reader_without_a_known_zone_reads_utc(
    zone: str, caplog: pytest.LogCaptureFixture
) -> None:
    text, _ = parts(received(replace(LETTER, reader_zone=zone)))
    assert "14:00 UTC" in text
    assert "user 3 has no known time zone" in caplog.text


@pytest.mark.parametrize(
    ("cents", "shown"),
    [(0, "$0.00"), (5, "$0.05"), (4_500, "$45.00"), (123_456_789, "$1,234,567.89")],
)
def test_a_price_is_shown_in_dollars_and_cents(cents: int, shown: str) -> None:
    assert dollars(cents) == shown


def test_the_headers_are_those_that_a_mail_of_this_kind_needs() -> None:
    mail = received(LETTER)
    assert set(mail.keys()) == HEADERS
    assert mail["From"] == "InstaInstru <no-reply@lessons.example>"
    assert mail["To"] == "Ada Lovelace <ada@people.example>"
    assert mail["Date"].datetime == NOON
    assert mail["List-Unsubscribe"] == "<https://lessons.example/settings/notifications>"
    assert mail["Auto-Submitted"] == "auto-generated"


def test_the_message_id_names_the_mail_and_stays_the_same() -> None:
    assert received(LETTER)["Message-ID"] == "<confirmation.12.3@lessons.example>"
    later = parsed(render(LETTER, settings=SETTINGS, now=NOON.replace(year=2030)))
    assert later["Message-ID"] == received(LETTER)["Message-ID"]


@pytest.mark.parametrize(
    "change",
    [{"kind": EmailKind.REMINDER_1H}, {"subject_id": 13}, {"recipient_id": 4}],
)
def test_another_kind_subject_or_reader_is_another_message(change: dict[str, object]) -> None:
    other = replace(LETTER, **change)  # type: ignore[arg-type]
    assert received(other)["Message-ID"] != received(LETTER)["Message-ID"]


def test_one_letter_at_one_instant_is_always_the_same_bytes() -> None:
    once, again = (render(LETTER, settings=SETTINGS, now=NOON) for _ in range(2))
    assert once == again


def test_the_bytes_are_seven_bit_lines_that_any_server_takes() -> None:
    letter = replace(LETTER, student_name="Žofie " * 30, service_name="Ř" * 200)
    lines = render(letter, settings=SETTINGS, now=NOON).split(b"\r\n")
    assert max(len(line) for line in lines) <= 998  # RFC 5322, 2.1.1
    assert all(line.isascii() and b"\n" not in line and b"\r" not in line for line in lines)


@pytest.mark.parametrize(
    "name",
    ["Zoë", "李小龙", "Doe, Jane", 'The "Boss"', "a\\b", "", "O'Neil (Bob) <x@y>"],
)
def test_a_name_of_any_signs_arrives_as_it_is(name: str) -> None:
    mail = received(replace(LETTER, reader_name=name))
    (mailbox,) = mail["To"].addresses
    assert (mailbox.display_name, mailbox.addr_spec) == (name, "ada@people.example")


def test_a_name_of_many_signs_arrives_as_it_is() -> None:
    name = "Ж" * 200
    raw = BytesParser(policy=compat32).parsebytes(
        render(replace(LETTER, reader_name=name), settings=SETTINGS, now=NOON)
    )
    # Not by the modern parser: until Python 3.12 it puts spaces between encoded words.
    assert str(make_header(decode_header(raw["To"]))) == f"{name} <ada@people.example>"


@pytest.mark.parametrize("address", ["", "ada", "a b@x.example", "a@x\r\nBcc: b@x", "<a@x>", "ä@x"])
def test_an_address_that_cannot_be_used_is_refused_without_repeating_it(address: str) -> None:
    with pytest.raises(MailRefusedError, match=r"^the address cannot be used$"):
        received(replace(LETTER, reader_address=address))


NAMES = ["reader_name", "student_name", "instructor_name", "service_name"]
INJECTIONS = [
    "x\r\nBcc: victim@people.example",
    "x\nBcc: victim@people.example\n\nbody",
    "x\rBcc: victim@people.example",
    "x\r\n\r\n<html>",
    "x\u2028Bcc: victim@people.example",
    "x\x85Bcc: victim@people.example",
    "x\x0b\x0cBcc: victim@people.example\x00",
    "=?utf-8?q?x=0D=0ABcc:_victim=40people.example?=",
    "=?utf-8?b?eA0KQmNjOiB2aWN0aW1AcGVvcGxlLmV4YW1wbGU=?=",
    'x" <victim@people.example>, "y',
    "x>, <victim@people.example",
]


@pytest.mark.parametrize("words", INJECTIONS)
@pytest.mark.parametrize(
    "field", ["reader_name", "student_name", "instructor_name", "service_name"]
)
def test_no_name_adds_a_header_a_reader_or_a_part(field: str, words: str) -> None:
    mail = received(replace(LETTER, **{field: words}))  # type: ignore[arg-type]
    assert set(mail.keys()) == HEADERS
    assert len(mail.keys()) == len(HEADERS)
    assert [mailbox.addr_spec for mailbox in mail["To"].addresses] == ["ada@people.example"]
    assert len(parts(mail)) == 2
    assert "\n" not in mail["Subject"]


@pytest.mark.parametrize(
    "field", ["reader_name", "student_name", "instructor_name", "service_name"]
)
@pytest.mark.parametrize("teaches", [False, True])
@pytest.mark.parametrize("kind", list(SUBJECTS))
def test_html_in_a_name_is_shown_and_not_run(kind: EmailKind, teaches: bool, field: str) -> None:
    script = "<script>alert('x')</script>"
    letter = replace(LETTER, kind=kind, reader_teaches=teaches)
    _, html = parts(received(replace(letter, **{field: script})))  # type: ignore[arg-type]
    assert "<script" not in html


def test_a_name_is_escaped_in_html_and_plain_in_text() -> None:
    text, html = parts(received(replace(LETTER, instructor_name="Tom & <Jerry>")))
    assert "Tom & <Jerry>" in text
    assert "Tom &amp; &lt;Jerry&gt;" in html


def test_a_line_of_text_stays_a_line() -> None:
    assert one_line(" a\r\n b\t\u2029c\u202ed \x00") == "a b c d"


def test_signs_that_join_letters_stay() -> None:
    assert one_line("می‌خواهم") == "می‌خواهم"  # a zero-width non-joiner, as Persian needs it


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("http://evil.example", "http: //evil. example"),
        ("evil.example/login", "evil. example/login"),
        ("www.evil.example", "www. evil. example"),
        ("http://1.2.3.4/", "http: //1.2.3.4/"),
        ("mailto:eve@evil.example", "mailto: eve@evil. example"),
        ("file:\\\\evil\\share", "file: \\ \\evil\\share"),
        ("evil\u3002example", "evil\u3002 example"),
        ("evil.\u200dexample", "evil. \u200dexample"),
        ("evil.\u200bexample", "evil. example"),
        ("St.John", "St. John"),
        ("Sammy Davis Jr., at 12:30, Maths 2.0 (etc.)",) * 2,
    ],
)
def test_a_name_is_no_link_and_stays_readable(name: str, shown: str) -> None:
    assert untrusted(name) == shown


def test_no_format_character_of_unicode_passes_but_the_joiners() -> None:
    signs = [chr(point) for point in range(sys.maxunicode + 1)]
    assert sum(category(sign) == "Cf" for sign in signs) > 150
    passed = {sign for sign in signs if category(sign) == "Cf" and sign in one_line(f"a{sign}b")}
    assert passed == {"\u200c", "\u200d"}


BIDI_CONTROL = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Unicode's property of that name (PropList.txt)."""


@pytest.mark.parametrize(
    "sign", [*BIDI_CONTROL, "\ufeff", "\U000e0041", "\u206a", "\u180e"], ids=ascii
)
def test_a_sign_that_nobody_sees_is_taken_out(sign: str) -> None:
    assert one_line(f"Ada{sign} Byron{sign}") == "Ada Byron"
    assert one_line(f"{sign}Ada") == "Ada"


def test_an_operators_announcement_keeps_its_link_and_a_name_in_a_notification_is_none() -> None:
    told = Unread("News", "Read https://news.example/1", NOON, announced=True)
    named = Unread("News", "Read https://evil.example/1", NOON)
    letter = DigestLetter(
        kind=EmailKind.DIGEST,
        subject_id=1,
        recipient_id=2,
        reader_name="Ada",
        reader_address="ada@people.example",
        reader_zone="UTC",
        day=NOON.date(),
        listed=(told, named),
        total=2,
    )
    for part in parts(received(letter)):
        assert "https://news.example/1" in part
        assert "https: //evil. example/1" in part
