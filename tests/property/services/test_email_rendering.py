"""Whatever people write into their names, a mail stays the mail it was meant to be."""

from datetime import UTC, date, datetime
from typing import Any

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
from app.services.email_rendering import render
from app.settings import Settings
from tests.builders import NOON
from tests.mailers import parsed

SETTINGS = Settings()

LONGEST = 200  # of a name, in the tables
words = text(max_size=LONGEST) | text(alphabet="a \r\n:=?<>\"',;@\\\0\u2028й", max_size=LONGEST)

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
