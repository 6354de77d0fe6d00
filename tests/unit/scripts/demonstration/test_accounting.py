"""The demo's books, on made-up tables and mailboxes."""

from collections.abc import Iterator, Sequence
from datetime import UTC, timedelta
from pathlib import Path
from random import Random
from uuid import uuid4

import pytest
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from app import routing
from app.domain.reminders import LEADS
from app.models import (
    Booking,
    BookingStatus,
    EmailKind,
    EmailMessage,
    EmailState,
    NotificationKind,
    OutboxEntry,
    OutboxState,
    PasswordReset,
)
from app.services import notifications, password_resets
from scripts.demonstration.accounting import Account, draw_up, message_id
from scripts.demonstration.debts import Debts, number_of
from scripts.live.mailbox import Mailbox
from tests.builders import NOON, a_lesson, a_mail, a_student

DOMAIN = "instainstru.example"
MINUTE = timedelta(minutes=1)
YESTERDAY = (NOON - timedelta(days=1)).date()
FAR_OFF = NOON + timedelta(days=7)
CONFIRMED, CANCELLED = EmailKind.BOOKING_CONFIRMATION, EmailKind.BOOKING_CANCELLATION


@pytest.fixture
def session(database: Engine) -> Iterator[Session]:
    with Session(database) as session, session.begin():
        yield session


@pytest.fixture
def maildir(tmp_path: Path) -> Path:
    (tmp_path / "mail" / "new").mkdir(parents=True)
    return tmp_path / "mail"


def arrive(maildir: Path, *mails: tuple[EmailKind, Booking, int]) -> None:
    folder = maildir / "new"
    for kind, lesson, reader in mails:
        name = f"{len(list(folder.iterdir())):06}"
        identity = message_id(kind, lesson.id, reader, domain=DOMAIN)
        (folder / name).write_text(f"Subject: made up\nMessage-ID: {identity}\n\nHello.\n")


def both(kind: EmailKind, lesson: Booking) -> Sequence[tuple[EmailKind, Booking, int]]:
    return [(kind, lesson, lesson.student_id), (kind, lesson, lesson.instructor_id)]


def count(session: Session, maildir: Path, *, reported: bool = False) -> Account:
    return draw_up(
        session,
        Mailbox(maildir).message_ids(),
        Debts(session, yesterday=YESTERDAY, zone=UTC),
        domain=DOMAIN,
        reminded_at=NOON,
        reported=reported,
        now=NOON + timedelta(seconds=30),
    )


def an_entry(
    session: Session,
    task: str = "app.tasks.email.deliver",
    *,
    state: OutboxState = OutboxState.DONE,
    due_in: timedelta = timedelta(0),
    tries: int = 0,
) -> None:
    session.add(
        OutboxEntry(
            id=str(uuid4()),
            task=task,
            queue=routing.queue_for(task).name,
            priority=4,
            state=state,
            created_at=NOON,
            due_at=NOON + due_in,
            tries=tries,
        )
    )
    session.flush()


def test_a_confirmed_lesson_and_its_two_mails_add_up(session: Session, maildir: Path) -> None:
    lesson = a_lesson(session, starts_at=FAR_OFF)
    arrive(maildir, *both(CONFIRMED, lesson))
    account = count(session, maildir)
    assert (account.expected, account.delivered, account.doubled) == (2, 2, 0)
    assert (account.lost, account.unexpected) == (0, set())
    assert account.bookings["confirmed"] == 1


def test_a_mail_that_nobody_planned_or_sent_is_lost(session: Session, maildir: Path) -> None:
    lesson = a_lesson(session, starts_at=FAR_OFF)
    student, instructor = both(CONFIRMED, lesson)
    arrive(maildir, student)
    account = count(session, maildir)
    assert (account.expected, account.delivered, account.lost) == (2, 1, 1)
    assert account.missing == {message_id(CONFIRMED, lesson.id, instructor[2], domain=DOMAIN)}


def test_a_mail_that_the_table_calls_sent_is_lost_without_its_file(
    session: Session, maildir: Path
) -> None:
    lesson = a_lesson(session, starts_at=FAR_OFF)
    a_mail(session, about=lesson, state=EmailState.SENT)
    assert count(session, maildir).lost == 2


def test_two_files_with_one_message_id_are_a_doubled_mail(session: Session, maildir: Path) -> None:
    lesson = a_lesson(session, starts_at=FAR_OFF)
    arrive(maildir, *both(CONFIRMED, lesson), (CONFIRMED, lesson, lesson.student_id))
    account = count(session, maildir)
    assert (account.delivered, account.doubled, account.lost) == (2, 1, 0)
    assert len(account.unexplained) == 1


def test_a_takeover_explains_a_second_copy_of_that_mail_only(
    session: Session, maildir: Path
) -> None:
    lesson = a_lesson(session, starts_at=FAR_OFF)
    a_mail(session, about=lesson, state=EmailState.SENT).uncertain = 1
    arrive(maildir, *both(CONFIRMED, lesson), (CONFIRMED, lesson, lesson.student_id))
    assert count(session, maildir).unexplained == frozenset()
    arrive(maildir, (CONFIRMED, lesson, lesson.instructor_id))
    assert len(count(session, maildir).unexplained) == 1


def test_uncertain_claims_are_summed_from_the_rows(session: Session, maildir: Path) -> None:
    lesson = a_lesson(session, starts_at=FAR_OFF)
    a_mail(session, about=lesson, state=EmailState.SENT).uncertain = 2
    a_mail(session, about=lesson, to=lesson.instructor, state=EmailState.SENT).uncertain = 1
    assert count(session, maildir).uncertain == 3


def test_a_pending_lesson_is_owed_nothing(session: Session, maildir: Path) -> None:
    lesson = a_lesson(session, starts_at=FAR_OFF, status=BookingStatus.PENDING)
    arrive(maildir, (CONFIRMED, lesson, lesson.student_id))
    account = count(session, maildir)
    assert account.expected == 0
    assert len(account.unexpected) == 1


def test_a_cancelled_lesson_is_owed_both_cancellations_only(
    session: Session, maildir: Path
) -> None:
    lesson = a_lesson(session, starts_at=FAR_OFF, status=BookingStatus.CANCELLED)
    a_mail(session, about=lesson, state=EmailState.CANCELLED)
    arrive(maildir, *both(CANCELLED, lesson))
    account = count(session, maildir)
    assert (account.expected, account.delivered, account.lost) == (2, 2, 0)
    assert account.bookings["cancelled"] == 1


def test_a_confirmation_that_was_sent_before_the_cancellation_is_expected_too(
    session: Session, maildir: Path
) -> None:
    lesson = a_lesson(session, starts_at=FAR_OFF, status=BookingStatus.CANCELLED)
    a_mail(session, about=lesson, state=EmailState.SENT)
    arrive(maildir, *both(CANCELLED, lesson), (CONFIRMED, lesson, lesson.student_id))
    account = count(session, maildir)
    assert (account.expected, account.delivered, account.lost) == (3, 3, 0)


def test_of_a_mail_withdrawn_after_its_sender_died_only_the_mailbox_knows(
    session: Session, maildir: Path
) -> None:
    lesson = a_lesson(session, starts_at=FAR_OFF, status=BookingStatus.CANCELLED)
    a_mail(session, about=lesson, state=EmailState.CANCELLED).uncertain = 1
    arrive(maildir, *both(CANCELLED, lesson))
    assert (count(session, maildir).expected, count(session, maildir).lost) == (2, 0)
    arrive(maildir, (CONFIRMED, lesson, lesson.student_id))
    account = count(session, maildir)
    assert (account.expected, account.lost, account.unexpected) == (3, 0, frozenset())


def test_a_mail_that_was_withdrawn_in_time_is_unexpected(session: Session, maildir: Path) -> None:
    lesson = a_lesson(session, starts_at=FAR_OFF, status=BookingStatus.CANCELLED)
    a_mail(session, about=lesson, state=EmailState.CANCELLED)
    arrive(maildir, *both(CANCELLED, lesson), (CONFIRMED, lesson, lesson.student_id))
    assert len(count(session, maildir).unexpected) == 1


def test_a_lesson_cancelled_before_it_was_confirmed_is_owed_nothing(
    session: Session, maildir: Path
) -> None:
    lesson = a_lesson(session, starts_at=FAR_OFF, status=BookingStatus.CANCELLED)
    lesson.confirmed_at = None
    assert count(session, maildir).expected == 0


@pytest.mark.parametrize("kind", LEADS)
def test_a_reminder_that_was_due_when_reminders_were_last_sent_is_owed_to_both(
    session: Session, maildir: Path, kind: EmailKind
) -> None:
    lesson = a_lesson(session, starts_at=NOON + LEADS[kind])
    arrive(maildir, *both(CONFIRMED, lesson))
    assert (count(session, maildir).expected, count(session, maildir).lost) == (4, 2)
    arrive(maildir, *both(kind, lesson))
    assert count(session, maildir).lost == 0


@pytest.mark.parametrize("kind", LEADS)
def test_a_reminder_that_fell_due_since_is_not_owed_but_counts_once_it_is_planned(
    session: Session, maildir: Path, kind: EmailKind
) -> None:
    lesson = a_lesson(session, starts_at=NOON + LEADS[kind] + timedelta(seconds=10))
    arrive(maildir, *both(CONFIRMED, lesson))
    assert count(session, maildir).expected == 2
    row = a_mail(session, about=lesson, kind=kind, state=EmailState.SENT)
    row.created_at = NOON + timedelta(seconds=20)
    assert (count(session, maildir).expected, count(session, maildir).lost) == (3, 1)


def test_a_lesson_confirmed_inside_the_window_is_owed_no_reminder(
    session: Session, maildir: Path
) -> None:
    lesson = a_lesson(
        session, starts_at=NOON + 50 * MINUTE, confirmed_at=NOON - timedelta(seconds=5)
    )
    a_mail(session, about=lesson, kind=EmailKind.REMINDER_1H, state=EmailState.SENT)
    arrive(maildir, *both(CONFIRMED, lesson), (EmailKind.REMINDER_1H, lesson, lesson.student_id))
    account = count(session, maildir)
    assert account.expected == 2
    assert len(account.unexpected) == 1, "its row alone does not make it right"


def test_a_mail_to_somebody_else_is_unexpected(session: Session, maildir: Path) -> None:
    lesson, other = (a_lesson(session, starts_at=FAR_OFF) for _ in range(2))
    arrive(maildir, *both(CONFIRMED, lesson), *both(CONFIRMED, other))
    arrive(maildir, (CONFIRMED, lesson, other.student_id))
    assert len(count(session, maildir).unexpected) == 1


def test_a_no_show_is_owed_a_notice_to_both(session: Session, maildir: Path) -> None:
    lesson = a_lesson(session, starts_at=NOON - MINUTE * 90, status=BookingStatus.NO_SHOW)
    arrive(maildir, *both(CONFIRMED, lesson))
    assert len(count(session, maildir).missing) == 2


def test_who_wants_no_reminder_is_owed_none(session: Session, maildir: Path) -> None:
    lesson = a_lesson(session, starts_at=NOON + LEADS[EmailKind.REMINDER_24H] - MINUTE)
    arrive(maildir, *both(CONFIRMED, lesson))
    lesson.student.wants_reminders = False
    session.flush()
    reader = lesson.instructor_id
    assert count(session, maildir).missing == {
        message_id(EmailKind.REMINDER_24H, lesson.id, reader, domain=DOMAIN)
    }


def test_of_two_password_resets_only_the_newer_is_owed(session: Session, maildir: Path) -> None:
    user = a_student(session)
    for at in (NOON - MINUTE, NOON):
        password_resets.request(session, user.email, now=at, rng=Random(1 + at.minute))
    newer = session.scalars(select(func.max(PasswordReset.id))).one()
    assert count(session, maildir).missing == {
        message_id(EmailKind.PASSWORD_RESET, newer, user.id, domain=DOMAIN)
    }


def test_a_digest_is_owed_for_what_was_not_read_yesterday(session: Session, maildir: Path) -> None:
    user = a_student(session)
    notifications.create(
        session,
        user_id=user.id,
        kind=NotificationKind.BROADCAST,
        key="k",
        title="t",
        body="b",
        now=NOON - timedelta(days=1),
    )
    digest = message_id(EmailKind.DIGEST, number_of(YESTERDAY), user.id, domain=DOMAIN)
    assert count(session, maildir, reported=True).missing == {digest}
    assert count(session, maildir).missing == set(), "nobody has asked for it yet"


def test_a_digest_of_nothing_is_unexpected(session: Session, maildir: Path) -> None:
    user = a_student(session)
    session.add(
        EmailMessage(
            kind=EmailKind.DIGEST,
            subject_id=number_of(YESTERDAY),
            recipient_id=user.id,
            created_at=NOON,
        )
    )
    session.flush()
    assert count(session, maildir, reported=True).expected == 0


def test_what_is_due_and_not_done_is_lost_and_what_waits_is_not(
    session: Session, maildir: Path
) -> None:
    an_entry(session, state=OutboxState.PENDING)
    an_entry(session, state=OutboxState.PENDING, due_in=5 * MINUTE)
    for state in (OutboxState.DONE, OutboxState.DEAD, OutboxState.CANCELLED):
        an_entry(session, state=state)
    account = count(session, maildir)
    assert account.outbox == {"done": 1, "pending": 1, "later": 1, "dead": 1}
    assert account.lost == 1


def test_tasks_are_counted_by_module_from_the_outbox(session: Session, maildir: Path) -> None:
    an_entry(session, "app.tasks.email.deliver", tries=2)
    an_entry(session, "app.tasks.email.send_booking_confirmation")
    an_entry(session, "app.tasks.email.deliver", state=OutboxState.DEAD, tries=1)
    an_entry(session, "app.tasks.bookings.send_due_reminders")
    assert count(session, maildir).tasks == {
        "bookings": {"succeeded": 1, "failed": 0, "retried": 0},
        "email": {"succeeded": 2, "failed": 1, "retried": 3},
    }
