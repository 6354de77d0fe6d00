from datetime import timedelta
from email.message import EmailMessage as ReceivedMail
from hashlib import sha256
from pathlib import Path
from random import Random
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine, select, update
from sqlalchemy.orm import Session

from app import db, entropy
from app.adapters.mailer import MailFateUnknownError, MailRefusedError, MailServerUnavailableError
from app.models import EmailKind, EmailMessage, EmailState, OutboxEntry, PasswordReset, User
from app.routing import queue_for, wire_priority
from app.services import bookings, cleanup, email_delivery, email_letters, password_resets
from app.services.email import DELIVER
from app.services.errors import MissingRowError
from app.services.password_resets import SEND_PASSWORD_RESET, URGENCY, VALID_FOR
from app.settings import Settings
from tests.builders import NOON, a_lesson, a_password_reset, a_student, all_mails, planned
from tests.database import on_sqlite
from tests.fakes import FakeClock
from tests.mailers import FakeMailer

TICK = timedelta(microseconds=1)
ADDRESS = "ada@people.example"
LEASE = timedelta(seconds=Settings().mail_lease_seconds)


def requested(session: Session, *, seed: int = 1) -> PasswordReset:
    """The reset that Ada's request makes."""
    if session.scalar(select(User.id).where(User.email == ADDRESS)) is None:
        a_student(session, email=ADDRESS)
    password_resets.request(session, ADDRESS, now=NOON, rng=Random(seed))
    return all_resets(session)[-1]


def all_resets(session: Session) -> list[PasswordReset]:
    return list(
        session.scalars(
            select(PasswordReset)
            .order_by(PasswordReset.id)
            .execution_options(populate_existing=True)
        )
    )


def text_of(mail: ReceivedMail) -> str:
    text = mail.get_body(("plain",))
    assert text is not None
    return str(text.get_content())


def token_of(reset: PasswordReset) -> str:
    assert reset.token is not None
    return reset.token


def test_a_token_opens_the_account_of_who_asked_for_it(session: Session) -> None:
    reset = requested(session)
    assert password_resets.redeem(session, token_of(reset), now=NOON) == reset.user_id


def test_a_token_opens_once(session: Session) -> None:
    token = token_of(requested(session))
    password_resets.redeem(session, token, now=NOON)
    assert password_resets.redeem(session, token, now=NOON) is None


def test_a_token_opens_until_it_expires(session: Session) -> None:
    token = token_of(requested(session))
    assert password_resets.redeem(session, token, now=NOON + VALID_FOR) is None
    assert password_resets.redeem(session, token, now=NOON + VALID_FOR - TICK) is not None


def test_a_new_request_makes_the_older_token_void(session: Session) -> None:
    older = token_of(requested(session, seed=1))
    newer = token_of(requested(session, seed=2))
    assert password_resets.redeem(session, older, now=NOON) is None
    assert password_resets.redeem(session, newer, now=NOON) is not None


def test_a_request_leaves_the_resets_of_others_alone(session: Session) -> None:
    other = a_password_reset(session)
    requested(session)
    assert password_resets.redeem(session, token_of(other), now=NOON) == other.user_id


@pytest.mark.parametrize("typed", ["", "no such token", "\ud800", "x" * 100_000])
def test_what_is_no_token_opens_nothing(session: Session, typed: str) -> None:
    requested(session)
    assert password_resets.redeem(session, typed, now=NOON) is None


def test_the_hash_is_no_token(session: Session) -> None:
    reset = requested(session)
    assert password_resets.redeem(session, reset.token_hash, now=NOON) is None


def test_a_used_token_is_kept_as_its_hash_alone(session: Session) -> None:
    token = token_of(requested(session))
    password_resets.redeem(session, token, now=NOON)
    (reset,) = all_resets(session)
    assert (reset.token, reset.token_hash) == (None, sha256(token.encode()).hexdigest())
    assert reset.used_at == NOON


def test_a_void_token_is_forgotten(session: Session) -> None:
    requested(session, seed=1)
    requested(session, seed=2)
    older, _ = all_resets(session)
    assert older.token is None


def test_an_unknown_address_looks_the_same_and_nothing_is_kept_or_sent(session: Session) -> None:
    a_student(session, email=ADDRESS)
    for address in ("nobody@people.example", ADDRESS):
        password_resets.request(session, address, now=NOON, rng=Random(1))
    assert len(all_resets(session)) == len(planned(session)) == 1


def test_a_token_has_256_bits_of_the_generator_and_two_are_never_the_same(session: Session) -> None:
    tokens = {token_of(requested(session, seed=seed)) for seed in range(20)}
    assert (len(tokens), {len(token) for token in tokens}) == (20, {43})


def test_production_draws_tokens_from_the_operating_system(session: Session) -> None:
    a_student(session, email=ADDRESS)
    for _ in range(2):
        password_resets.request(session, ADDRESS, now=NOON, rng=entropy.rng())
    assert len({reset.token_hash for reset in all_resets(session)}) == 2


def test_the_outbox_carries_the_resets_id_alone(session: Session) -> None:
    reset = requested(session)
    assert planned(session) == [(SEND_PASSWORD_RESET, [reset.id])]


def test_a_reset_and_its_delivery_go_before_every_other_mail(session: Session) -> None:
    reset = requested(session)
    password_resets.queue_mail(session, reset.id, now=NOON)
    rows = session.execute(select(OutboxEntry.task, OutboxEntry.priority))
    assert dict(rows.all()) == {
        SEND_PASSWORD_RESET: wire_priority(URGENCY),
        DELIVER: wire_priority(URGENCY),
    }
    assert queue_for(DELIVER).urgency < URGENCY


def test_a_mail_that_was_planned_before_is_not_planned_again(session: Session) -> None:
    reset = a_password_reset(session)
    assert len(password_resets.queue_mail(session, reset.id, now=NOON)) == 1
    assert password_resets.queue_mail(session, reset.id, now=NOON) == []
    assert len(all_mails(session)) == 1


def test_a_reset_that_opens_nothing_any_more_is_not_mailed_and_its_token_is_forgotten(
    session: Session,
) -> None:
    reset = a_password_reset(session)
    assert password_resets.queue_mail(session, reset.id, now=reset.expires_at) == []
    assert (all_mails(session), all_resets(session)[0].token) == ([], None)


def test_an_unknown_reset_is_named(session: Session) -> None:
    with pytest.raises(MissingRowError, match="password reset 999"):
        password_resets.queue_mail(session, 999, now=NOON)


class Post:
    """A reset whose mail is planned, and a worker that delivers it."""

    def __init__(self) -> None:
        self.mailer = FakeMailer()
        self.clock = FakeClock(NOON)
        with db.transaction() as session:
            user = a_student(session, email=ADDRESS)
            self.token = token_of(a_password_reset(session, user=user))
            (reset,) = all_resets(session)
            self.expires_at = reset.expires_at
            self.email_ids = password_resets.queue_mail(session, reset.id, now=NOON)

    def deliver(self, *, include_failed: bool = False) -> email_delivery.DeliverySummary:
        return email_delivery.deliver(
            self.email_ids,
            mailer=self.mailer,
            settings=Settings(),
            clock=self.clock,
            include_failed=include_failed,
        )

    def fail(self, error: Exception) -> None:
        self.mailer.faults[ADDRESS] = [error]

    @property
    def stored_token(self) -> str | None:
        with db.reading() as session:
            return session.scalars(select(PasswordReset.token)).one()

    @property
    def state(self) -> EmailState:
        with db.reading() as session:
            return all_mails(session)[0].state


@pytest.fixture
def post(database: Engine) -> Post:
    return Post()


def test_the_mail_has_the_link_in_both_parts(post: Post) -> None:
    post.deliver()
    (mail,) = post.mailer.received
    link = f"https://instainstru.example/reset-password?token={post.token}"
    for part in mail.iter_parts():
        assert link in part.get_content()
        assert "08:00 EST" in part.get_content()  # the reader's time, an hour after noon UTC


def test_the_token_is_forgotten_when_its_mail_is_out_and_still_opens(post: Post) -> None:
    post.deliver()
    assert (post.state, post.stored_token) == (EmailState.SENT, None)
    with db.transaction() as session:
        assert password_resets.redeem(session, post.token, now=NOON) is not None


def test_the_token_is_forgotten_although_another_mail_follows_in_its_delivery(post: Post) -> None:
    with db.transaction() as session:
        other = a_password_reset(session, token="another token")
        post.email_ids += password_resets.queue_mail(session, other.id, now=NOON)
    assert post.deliver().sent == 2
    with db.reading() as session:
        assert [reset.token for reset in all_resets(session)] == [None, None]


def test_the_token_is_forgotten_when_its_mail_has_failed_for_good(post: Post) -> None:
    post.fail(MailRefusedError("SMTP 550 to RCPT"))
    post.deliver()
    assert (post.state, post.stored_token) == (EmailState.FAILED, None)


def copies(engine: Engine, token: str) -> list[str]:
    """The files of the database in which the token's bytes stand."""
    name = engine.url.database
    assert name is not None
    files = [Path(f"{name}{ending}") for ending in ("", "-wal", "-shm")]
    return [path.name for path in files if path.exists() and token.encode() in path.read_bytes()]


@on_sqlite
@pytest.mark.parametrize("end", ["sent", "refused", "too late"])
def test_no_file_of_the_database_holds_the_token_of_a_mail_that_is_closed(
    database: Engine, post: Post, end: str
) -> None:
    assert copies(database, post.token), "it is there until then"
    if end == "refused":
        post.fail(MailRefusedError("SMTP 550 to RCPT"))
    if end == "too late":
        post.clock.now = post.expires_at
    post.deliver()
    assert post.stored_token is None
    assert copies(database, post.token) == []


@on_sqlite
def test_a_token_that_a_checkpoint_wrote_before_is_overwritten_too(
    database: Engine, post: Post
) -> None:
    assert db.discard_deleted()
    assert copies(database, post.token) == ["test.sqlite3"]
    post.deliver()
    assert copies(database, post.token) == []


@on_sqlite
def test_a_token_that_a_reader_keeps_in_the_log_is_gone_after_the_next_cleanup(
    database: Engine, post: Post
) -> None:
    with db.reading() as slow:
        slow.scalars(select(User)).all()
        post.deliver()
        assert copies(database, post.token), "the reader still sees the row as it was"
    cleanup.sweep(
        cleanup.expired_sessions(now=NOON),
        budget=timedelta(seconds=1),
        clock=post.clock,
        pause=lambda: None,
    )
    assert copies(database, post.token) == []


def test_a_failed_mail_that_is_sent_again_has_nothing_to_say(post: Post) -> None:
    post.fail(MailRefusedError("SMTP 550 to RCPT"))
    post.deliver()
    assert post.deliver(include_failed=True).cancelled == 1


def test_the_token_is_forgotten_when_its_mail_comes_too_late(post: Post) -> None:
    post.clock.now = post.expires_at
    assert post.deliver().cancelled == 1
    assert (post.state, post.stored_token) == (EmailState.CANCELLED, None)


def test_a_used_reset_is_not_mailed(post: Post) -> None:
    with db.transaction() as session:
        password_resets.redeem(session, post.token, now=NOON)
    assert (post.deliver().cancelled, post.mailer.received) == (1, [])


def test_a_void_reset_is_not_mailed(post: Post) -> None:
    with db.transaction() as session:
        password_resets.request(session, ADDRESS, now=NOON, rng=Random(1))
    assert (post.deliver().cancelled, post.mailer.received) == (1, [])


def test_the_token_waits_for_a_server_that_is_away(post: Post) -> None:
    post.fail(MailServerUnavailableError("closed at MAIL"))
    post.deliver()
    assert post.stored_token == post.token
    assert post.deliver().sent == 1


def test_a_mail_of_unknown_fate_goes_out_again_with_the_same_token(post: Post) -> None:
    post.fail(MailFateUnknownError("closed"))
    post.deliver()
    post.clock.now += LEASE
    post.deliver()
    assert post.token in text_of(post.mailer.received[0])
    assert post.stored_token is None


def test_the_token_is_in_no_log_no_dead_letter_and_no_row_of_the_outbox(
    post: Post, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("DEBUG"):
        post.fail(MailFateUnknownError("closed"))
        post.deliver()
        post.clock.now += LEASE
        post.fail(MailRefusedError("SMTP 550 to RCPT"))
        post.deliver()
    with db.reading() as session:
        rows = session.scalars(select(OutboxEntry)).all()
        said = [f"{row.args} {row.kwargs} {row.errors} {row.key}" for row in rows]
        said += [mail.error or "" for mail in all_mails(session)]
    assert "SMTP 550 to RCPT" in " ".join(said)
    assert post.token not in caplog.text + " ".join(said)


def test_the_letter_does_not_show_its_token_when_it_is_printed(post: Post) -> None:
    with db.reading_tables() as connection:
        letter = email_letters.read(
            connection, post.email_ids[0], EmailKind.PASSWORD_RESET, now=NOON, zone=ZoneInfo("UTC")
        )
    assert letter is not None
    assert post.token not in repr(letter)


def test_a_lesson_that_is_cancelled_leaves_the_reset_of_the_same_number_alone(post: Post) -> None:
    with db.transaction() as session:
        lesson = a_lesson(session, starts_at=NOON + timedelta(days=2))
        session.execute(update(PasswordReset).values(id=lesson.id))
        session.execute(update(EmailMessage).values(subject_id=lesson.id))
        bookings.cancel(session, lesson.id, now=NOON)
    assert post.deliver().sent == 1
