"""What an operator sees of mails: where they are, and why one came twice."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from app import db, outbox
from app.admin import entries
from app.admin.mails import ERRORS_SHOWN
from app.admin.output import WIDTH
from app.models import Booking, EmailKind, EmailState, User
from app.outbox import guard
from app.outbox.guard import Delivery
from app.services.email import DELIVER
from app.settings import load_settings
from tests.builders import a_lesson, a_mail
from tests.fakes import FakeClock
from tests.unit.admin.conftest import Admin

FATE_UNKNOWN = "MailFateUnknownError: mail.example:25: timed out after the message"


@pytest.fixture
def lesson(database: Engine, now: FakeClock) -> Booking:
    with db.transaction() as session:
        booking = a_lesson(session, starts_at=now.now + timedelta(days=2))
        booking.created_at = now.now
        booking.student.email = "ada.lovelace@people.example"
        booking.instructor.email = "b@people.example"
        session.flush()
        session.expunge_all()
        return booking


def mail(about: Booking, *, to: User | None = None, **values: Any) -> int:
    with db.transaction() as session:
        made = a_mail(session, about=about, to=to, kind=values.pop("kind", EmailKind.REMINDER_24H))
        for name, value in values.items():
            setattr(made, name, value)
        return made.id


def delivery(now: FakeClock, *email_ids: int, error: str | None = None) -> str:
    """The entry that delivers the mails, whose first attempt has failed with ``error``."""
    with db.transaction() as session:
        entry_id = outbox.enqueue(session, DELIVER, list(email_ids))
        if error is not None:
            attempt = Delivery(entry_id, DELIVER)
            guard.put_back(session, attempt, due_at=now.now, error=error, now=now.now)
    return entry_id


def test_mails_are_listed_the_latest_first_with_a_masked_address(
    admin: Admin, lesson: Booking, now: FakeClock
) -> None:
    first = mail(lesson, claims=1, state=EmailState.SENT, sent_at=now.now)
    second = mail(lesson, to=lesson.instructor, created_at=now.now + timedelta(seconds=1))
    now.advance(minutes=5)
    answer = admin("mails", "list")
    assert answer.status == 0
    assert answer.lines[0] == "2 mails, the latest first"
    header = ["ID", "KIND", "ABOUT", "USER", "STATE", "CLAIMS", "UNKNOWN", "PLANNED", "TO"]
    assert answer.lines[2].split() == header
    assert [line.split() for line in answer.lines[3:5]] == [
        [
            *(str(second), "reminder_24h", "booking", str(lesson.id), str(lesson.instructor_id)),
            *("queued", "0", "0", "4m", "ago", "***@people.example"),
        ],
        [
            *(str(first), "reminder_24h", "booking", str(lesson.id), str(lesson.student_id)),
            *("sent", "1", "0", "5m", "ago", "a***@people.example"),
        ],
    ]
    assert max(len(line) for line in answer.lines) <= WIDTH


def test_no_command_prints_an_address_in_full(
    admin: Admin, lesson: Booking, now: FakeClock
) -> None:
    email_id = str(mail(lesson))
    for words in (("list",), ("list", "--json"), ("show", email_id), ("show", email_id, "--json")):
        answer = admin("mails", *words)
        assert answer.status == 0
        assert "a***@people.example" in answer.out
        assert "ada.lovelace" not in answer.out


def test_mails_are_found_by_state_booking_and_user(
    admin: Admin, lesson: Booking, now: FakeClock
) -> None:
    with db.transaction() as session:
        other = a_lesson(session, starts_at=now.now + timedelta(days=3))
        session.flush()
        session.expunge_all()
    mine = mail(lesson)
    doubled = mail(lesson, to=lesson.instructor, state=EmailState.SENT, uncertain=1)
    theirs = mail(other)
    digest = mail(other, to=lesson.student, kind=EmailKind.DIGEST, subject_id=20260630)

    def found(*words: str) -> set[int]:
        return {each["id"] for each in admin("mails", "list", "--json", *words).json}

    assert found() == {mine, doubled, theirs, digest}
    assert found("--booking", str(lesson.id)) == {mine, doubled}
    assert found("--booking", "20260630") == set()
    assert found("--user", str(lesson.student_id)) == {mine, digest}
    assert found("--state", "sent") == {doubled}
    assert found("--duplicated") == {doubled}
    assert found("--booking", str(lesson.id), "--state", "queued") == {mine}
    nothing = admin("mails", "list", "--booking", "4711", "--state", "failed")
    assert (nothing.status, nothing.out) == (0, "no failed mails about booking 4711\n")
    for typed in ("0", "x", "9" * 30):
        assert admin("mails", "list", "--booking", typed).is_one_line_of_refusal


def test_a_person_sees_the_latest_of_many(
    admin: Admin, lesson: Booking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries, "SHOWN", 1)
    mail(lesson)
    mail(lesson, to=lesson.instructor)
    lines = admin("mails", "list").lines
    assert lines[0] == "2 mails, the latest first"
    assert "1 older one is not shown: --json lists all" in lines
    assert len(admin("mails", "list", "--json").json) == 2


def test_why_a_mail_came_twice(admin: Admin, lesson: Booking, now: FakeClock) -> None:
    taken_over, sent = now.now + timedelta(minutes=2), now.now + timedelta(minutes=3)
    email_id = mail(
        lesson,
        state=EmailState.SENT,
        claims=2,
        uncertain=1,
        uncertain_at=taken_over,
        sent_at=sent,
    )
    entry_id = delivery(now, 4711, email_id, error=FATE_UNKNOWN)
    delivery(now, email_id * 10 + 1)
    answer = admin("mails", "show", str(email_id))
    assert answer.status == 0
    assert answer.lines[0] == (
        f"{email_id}: sent, possibly duplicated: its fate was unknown once, "
        "last on 2026-07-01 12:02:00 UTC"
    )
    told = dict(line.split("  ", 1) for line in answer.lines[2:] if "  " in line.strip())
    assert told["kind"].strip() == "reminder_24h"
    assert told["about"].strip() == f"booking {lesson.id}"
    assert told["recipient"].strip() == f"user {lesson.student_id}, a***@people.example"
    assert told["claims"].strip() == "2"
    message_id = f"<reminder_24h.{lesson.id}.{lesson.student_id}@instainstru.example>"
    assert told["message id"].strip() == message_id
    assert f"{entry_id}: retrying, 1 attempt rescheduled" in answer.out
    assert f"  2026-07-01 12:00:00 UTC  {FATE_UNKNOWN}" in answer.lines
    shown = admin("mails", "show", str(email_id), "--json").json
    assert shown["message_id"] == message_id
    assert (shown["booking"], shown["user"]) == (lesson.id, lesson.student_id)
    assert (shown["uncertain"], shown["uncertain_at"]) == (1, taken_over.isoformat())
    assert [(e["id"], e["state"], e["tries"]) for e in shown["entries"]] == [
        (entry_id, "pending", 1)
    ]


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ({}, "queued"),
        ({"error": "mail.example:25: SMTP 450 to RCPT"}, "queued, mail.example:25: SMTP 450"),
        ({"state": EmailState.SENT, "claims": 1}, "sent once"),
        ({"state": EmailState.FAILED, "error": "SMTP 550 to RCPT"}, "failed, SMTP 550 to RCPT"),
        ({"state": EmailState.CANCELLED}, "cancelled: it had become pointless or unwanted"),
        (
            {"state": EmailState.SENDING, "claims": 1, "leased_for": 60},
            "sending, claimed for 1m more",
        ),
        (
            {"state": EmailState.SENDING, "claims": 1, "leased_for": -60},
            "sending, its claim ran out 1m ago and its fate is unknown: the next attempt sends it",
        ),
        (
            {"state": EmailState.FAILED, "uncertain": 6, "error": "nobody knows"},
            "failed, nobody knows, possibly duplicated: its fate was unknown 6 times",
        ),
    ],
)
def test_the_first_line_says_what_became_of_a_mail(
    admin: Admin, lesson: Booking, now: FakeClock, values: dict[str, Any], verdict: str
) -> None:
    if "leased_for" in values:
        leased_until = now.now + timedelta(seconds=values["leased_for"])
        values = {**values, "leased_until": leased_until}
        del values["leased_for"]
    email_id = mail(lesson, **values)
    delivery(now, email_id)
    line = admin("mails", "show", str(email_id)).lines[0]
    assert line.startswith(f"{email_id}: {verdict}")


@pytest.mark.parametrize("state", [EmailState.QUEUED, EmailState.SENDING])
def test_a_mail_that_nothing_delivers_says_so(
    admin: Admin, lesson: Booking, now: FakeClock, state: EmailState
) -> None:
    email_id = mail(lesson, state=state, leased_until=now.now)
    entry_id = delivery(now, email_id)
    assert "no pending entry" not in admin("mails", "show", str(email_id)).lines[0]
    admin("outbox", "cancel", entry_id)
    line = admin("mails", "show", str(email_id)).lines[0]
    assert line.endswith(", no pending entry delivers it")


def test_a_mail_whose_entry_was_purged_says_so(
    admin: Admin, lesson: Booking, now: FakeClock
) -> None:
    answer = admin("mails", "show", str(mail(lesson, state=EmailState.SENT)))
    days = load_settings().outbox_retention_days
    assert f"no entry: done ones are deleted after {days} days" in answer.lines


def test_of_very_many_failed_attempts_the_last_are_shown(
    admin: Admin, lesson: Booking, now: FakeClock
) -> None:
    email_id = mail(lesson)
    entry_id = delivery(now, email_id)
    with db.transaction() as session:
        for tries in range(ERRORS_SHOWN + 3):
            attempt = Delivery(entry_id, DELIVER, tries=tries)
            error = f"ConnectionError: {tries}."
            guard.put_back(session, attempt, due_at=now.now, error=error, now=now.now)
    answer = admin("mails", "show", str(email_id))
    assert "  3 earlier errors are not shown" in answer.lines
    assert answer.out.count("ConnectionError: ") == ERRORS_SHOWN
    assert "ConnectionError: 2." not in answer.out


def test_every_entry_that_delivers_a_mail_is_shown(
    admin: Admin, lesson: Booking, now: FakeClock
) -> None:
    email_id = mail(lesson)
    first = delivery(now, email_id)
    with db.transaction() as session:
        guard.cancel(session, first, now=now.now)
    now.advance(seconds=1)
    with db.transaction() as session:
        second = outbox.bury_new(session, DELIVER, [email_id], True, error="SMTP 550 to RCPT")
        outbox.enqueue(session, "app.tasks.email.send_booking_confirmation", email_id)
    shown = admin("mails", "show", str(email_id), "--json").json["entries"]
    assert [(each["id"], each["state"]) for each in shown] == [
        (first, "cancelled"),
        (second, "dead"),
    ]


def test_a_mail_is_found_by_its_id_or_a_unique_beginning_of_it(
    admin: Admin, lesson: Booking
) -> None:
    first = mail(lesson, id=71)
    mail(lesson, to=lesson.instructor, id=812)
    mail(lesson, kind=EmailKind.REMINDER_1H, id=813)
    assert admin("mails", "show", str(first)).lines[0].startswith("71: ")
    assert admin("mails", "show", "7").lines[0].startswith("71: ")
    ambiguous = admin("mails", "show", "81")
    assert ambiguous.is_one_line_of_refusal
    assert ambiguous.err == "'81' is the beginning of several ids: 812, 813. Type more of it\n"
    unknown = admin("mails", "show", "9")
    assert unknown.is_one_line_of_refusal
    assert unknown.err == "no mail has the id 9\n"


@pytest.mark.parametrize(
    ("kind", "number", "about"),
    [
        (EmailKind.DIGEST, 20260630, "2026-06-30"),
        (EmailKind.WEEKLY_REPORT, 20260622, "2026-06-22"),
        (EmailKind.PASSWORD_RESET, 12, "password reset 12"),
        (EmailKind.NO_SHOW, 12, "booking 12"),
    ],
)
def test_what_a_mail_is_about(
    admin: Admin, lesson: Booking, kind: EmailKind, number: int, about: str
) -> None:
    email_id = mail(lesson, kind=kind, subject_id=number)
    shown = admin("mails", "show", str(email_id))
    assert f"about       {about}" in shown.lines
    assert admin("mails", "show", str(email_id), "--json").json["about"] == about


def test_a_mail_from_before_the_instant_was_kept_says_what_is_known(
    admin: Admin, lesson: Booking
) -> None:
    email_id = mail(lesson, state=EmailState.SENT, uncertain=2)
    assert admin("mails", "show", str(email_id)).lines[0] == (
        f"{email_id}: sent, possibly duplicated: its fate was unknown 2 times"
    )
