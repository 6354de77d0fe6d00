"""Whatever people write into their names, a mail stays the mail it was meant to be."""

import re
from dataclasses import replace
from datetime import UTC, date, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hypothesis import given
from hypothesis.strategies import (
    SearchStrategy,
    booleans,
    builds,
    dates,
    integers,
    just,
    lists,
    one_of,
    sampled_from,
    text,
    timezones,
)

import app
from app.models import EmailKind
from app.services.email_letters import (
    DigestLetter,
    LessonLetter,
    Letter,
    PasswordResetLetter,
    Unread,
    WeeklyReportLetter,
)
from app.services.email_letters.lesson import SUBJECTS
from app.services.email_rendering import UNSUBSCRIBE_PATH, render
from app.settings import Settings
from tests.builders import NOON
from tests.mailers import parsed

SETTINGS = Settings()
TEMPLATES = Path(app.__file__).with_name("templates") / "email"

LONGEST = 200  # of a name, in the tables
words = (
    text(max_size=LONGEST)
    | text(alphabet="a \r\n:=?<>\"',;@\\\0\u2028й", max_size=LONGEST)
    | text(alphabet="aй1./\\:\u3002\uff0e @w\u200b\u200c\u200f", max_size=LONGEST)
)

instants = integers(0, 2**32).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
numbers = integers(0, 10**9)
days = dates(min_value=date(1970, 1, 1), max_value=date(2100, 1, 1))
envelope: dict[str, SearchStrategy[Any]] = {
    "subject_id": integers(1, 2**31 - 1),
    "recipient_id": integers(1, 2**31 - 1),
    "reader_name": words,
    "reader_address": just("reader@people.example"),
    "reader_zone": sampled_from(["US/Eastern", "Asia/Kathmandu", "no such zone"])
    | timezones().map(str),
}
letters = one_of(
    builds(
        LessonLetter,
        **envelope,
        kind=sampled_from(list(SUBJECTS)),
        student_name=words,
        instructor_name=words,
        service_name=words,
        starts_at=instants,
        minutes=integers(1, 10_000),
        price_cents=numbers,
        student_came=booleans(),
        instructor_came=booleans(),
    ),
    builds(
        PasswordResetLetter,
        **envelope,
        kind=just(EmailKind.PASSWORD_RESET),
        token=text(max_size=64),
        expires_at=instants,
    ),
    builds(
        DigestLetter,
        **envelope,
        kind=just(EmailKind.DIGEST),
        day=days,
        listed=lists(builds(Unread, title=words, body=words, created_at=instants)).map(tuple),
        total=numbers,
    ),
    builds(
        WeeklyReportLetter,
        **envelope,
        kind=just(EmailKind.WEEKLY_REPORT),
        monday=days,
        completed=numbers,
        cancelled=numbers,
        no_shows=numbers,
        revenue_cents=numbers,
    ),
)


@given(letter=letters)
def test_words_of_any_signs_make_one_well_formed_mail_to_one_reader(letter: Letter) -> None:
    raw = render(letter, settings=SETTINGS, now=NOON)
    assert raw.isascii()
    assert all(len(line) <= 998 and b"\n" not in line for line in raw.split(b"\r\n"))
    mail = parsed(raw)
    assert sorted(mail.keys()) == [
        "Auto-Submitted",
        "Content-Type",
        "Date",
        "From",
        *(["List-Unsubscribe"] if letter.can_be_unsubscribed else []),
        "MIME-Version",
        "Message-ID",
        "Subject",
        "To",
    ]
    assert [mailbox.addr_spec for mailbox in mail["To"].addresses] == ["reader@people.example"]
    assert [part.get_content_type() for part in mail.iter_parts()] == ["text/plain", "text/html"]
    assert not mail.defects


class Tags(HTMLParser):
    """Which tags a document has, with their attributes' names, and where its links lead."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.found: set[tuple[str, ...]] = set()
        self.links: set[str] = set()
        self.text = ""
        self.feed(document)

    def handle_data(self, data: str) -> None:
        self.text += data + "\n"  # a client does not join the words of two elements

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add((tag, *sorted(name for name, _ in attrs)))
        self.links.update(value or "" for name, value in attrs if name in {"href", "src"})


BIDI_CONTROL = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Unicode's property of that name (PropList.txt)."""

OUR_TAGS = {
    found
    for template in sorted(TEMPLATES.glob("*.html"))
    for found in Tags(template.read_text()).found
}


@given(letter=letters)
def test_words_add_no_tag_no_attribute_and_no_link_to_the_html(letter: Letter) -> None:
    mail = parsed(render(letter, settings=SETTINGS, now=NOON))
    _, html = mail.iter_parts()
    tags = Tags(html.get_content())
    assert tags.found <= OUR_TAGS
    site = urlsplit(SETTINGS.public_url)
    assert {urlsplit(link)[:2] for link in tags.links} <= {site[:2]}


@given(letter=letters, sign=sampled_from(BIDI_CONTROL))
def test_no_sign_in_a_name_turns_the_text_after_it_round(letter: Letter, sign: str) -> None:
    names = {
        field: f"{sign}{getattr(letter, field)}{sign}gnp.exe"
        for field in ("reader_name", "student_name", "instructor_name", "service_name")
        if hasattr(letter, field)
    }
    mail = parsed(render(replace(letter, **names), settings=SETTINGS, now=NOON))
    seen = [mail["Subject"], mail["To"], *(part.get_content() for part in mail.iter_parts())]
    assert not any(sign in str(text) for text in seen)


# What the linkifiers of mail clients look for: a scheme, "www.", a host with a top-level domain.
LINKED = re.compile(
    r"""(?<!\w)[a-z][a-z0-9+.-]*:(?://|\\\\|[^\W\d])\S*     # http://x, mailto:x, file:\\\\x
    | \w[\w-]*[.\u3002\uff0e\uff61][\u200c\u200d]*[^\W\d_]\S*  # www.x, x.example
    | \\\\\S*""",
    re.VERBOSE | re.IGNORECASE,
)
URLS = ["http://evil.example", "evil.example/login", "www.evil.example", "mailto:eve@evil.example"]


@given(letter=letters, name=sampled_from(URLS) | words)
def test_no_word_of_a_person_is_turned_into_a_link_by_a_mail_client(
    letter: Letter, name: str
) -> None:
    fields = ("reader_name", "student_name", "instructor_name", "service_name")
    names = {field: name for field in fields if hasattr(letter, field)}
    mail = parsed(render(replace(letter, **names), settings=SETTINGS, now=NOON))
    plain, html = mail.iter_parts()
    for seen in (str(mail["Subject"]), plain.get_content(), Tags(html.get_content()).text):
        links = [found[0] for found in LINKED.finditer(seen)]
        assert all(link.startswith(SETTINGS.public_url) for link in links), links


@given(letter=letters)
def test_unsubscribing_leads_to_our_own_site_whatever_the_words(letter: Letter) -> None:
    mail = parsed(render(letter, settings=SETTINGS, now=NOON))
    expected = [f"<{SETTINGS.public_url}{UNSUBSCRIBE_PATH}>"] * letter.can_be_unsubscribed
    assert mail.get_all("List-Unsubscribe", []) == expected
