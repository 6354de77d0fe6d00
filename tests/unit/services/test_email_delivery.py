from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Barrier, Event
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, func, select, update

from app import db
from app.adapters.mailer import (
    MailFateUnknownError,
    MailRefusedError,
    MailServerUnavailableError,
    MailTemporarilyRefusedError,
)
from app.db import NetworkInTransactionError
from app.models import (
    Base,
    Booking,
    BookingStatus,
    EmailKind,
    EmailMessage,
    EmailState,
    OutboxEntry,
    OutboxState,
    User,
)
from app.services import bookings, email, email_claims, email_delivery, email_letters, reminders
from app.services.email import DELIVER
from app.services.email_delivery import DeliverySummary
from app.settings import Settings
from tests.builders import NOON, a_lesson, a_mail, a_student, all_mails, many_lessons
from tests.database import cut_off_others, on_postgresql, on_sqlite
from tests.fakes import FakeClock
from tests.mailers import FakeMailer, WorkerKilledError
from tests.query_plans import plans_of

SETTINGS = Settings(smtp_timeout_seconds=10, mail_lease_seconds=120)
SHORT_TASKS = Settings(
    smtp_timeout_seconds=10,
    mail_lease_seconds=50,
    task_soft_time_limit_seconds=110,
    task_time_limit_seconds=120,
)
LEASE = timedelta(seconds=SETTINGS.mail_lease_seconds)
WAIT = timedelta(seconds=SETTINGS.smtp_timeout_seconds)
TICK = timedelta(microseconds=1)
IN_TWO_DAYS = NOON + timedelta(days=2)


@dataclass
class Post:
    """The services with a mail server and a clock that the test holds."""

    mailer: FakeMailer
    clock: FakeClock

    def deliver(
        self,
        email_ids: Sequence[int],
        *,
        settings: Settings = SETTINGS,
        include_failed: bool = False,
    ) -> DeliverySummary:
        return email_delivery.deliver(
            email_ids,
            mailer=self.mailer,
            settings=settings,
            clock=self.clock,
            include_failed=include_failed,
        )


@pytest.fixture
def post(database: Engine) -> Post:
    return Post(FakeMailer(), FakeClock(NOON))


def confirmations(lessons: int = 1) -> list[int]:
    """Ids of queued confirmations, two for each of so many lessons."""
    with db.transaction() as session:
        return [
            email_id
            for booking_id in many_lessons(session, lessons, starts_at=IN_TWO_DAYS)
            for email_id in email.queue_confirmation(session, booking_id, now=NOON)
        ]


def mail(email_id: int) -> EmailMessage:
    with db.reading() as session:
        return session.scalars(select(EmailMessage).where(EmailMessage.id == email_id)).one()


def states() -> list[EmailState]:
    with db.reading() as session:
        return [row.state for row in all_mails(session)]


def address(email_id: int) -> str:
    with db.reading() as session:
        return session.scalars(
            select(User.email)
            .join(EmailMessage, EmailMessage.recipient_id == User.id)
            .where(EmailMessage.id == email_id)
        ).one()


def dead_letters() -> list[OutboxEntry]:
    with db.reading() as session:
        return list(
            session.scalars(select(OutboxEntry).where(OutboxEntry.state == OutboxState.DEAD))
        )


def test_both_sides_get_their_mail_over_one_connection(post: Post) -> None:
    email_ids = confirmations()
    summary = post.deliver(email_ids)
    assert summary == DeliverySummary(
        sent=2, failed=0, cancelled=0, skipped=0, left=(), error=None, retry_after=None
    )
    assert [recipient for _, recipient in post.mailer.envelopes] == [
        address(email_id) for email_id in email_ids
    ]
    assert post.mailer.connections == 1
    assert {(mail(email_id).state, mail(email_id).sent_at) for email_id in email_ids} == {
        (EmailState.SENT, NOON)
    }


def test_the_envelope_has_the_senders_address_and_the_header_the_name_too(post: Post) -> None:
    post.deliver(confirmations())
    assert post.mailer.envelopes[0][0] == "no-reply@instainstru.example"
    assert post.mailer.received[0]["From"] == "InstaInstru <no-reply@instainstru.example>"


def test_a_storm_of_reminders_goes_out_with_a_connection_for_each_chunk(post: Post) -> None:
    with db.transaction() as session:
        many_lessons(session, 130, starts_at=NOON + timedelta(hours=24))
        reminders.enqueue_due(session, now=NOON)
        chunks = list(session.scalars(select(OutboxEntry.args).where(OutboxEntry.task == DELIVER)))
    summaries = [post.deliver(*args) for args in chunks]
    assert sum(summary.sent for summary in summaries) == 260
    assert len(set(post.mailer.message_ids())) == len(post.mailer.received) == 260
    assert post.mailer.connections == len(chunks) == 3


def test_what_is_sent_is_not_sent_again_and_not_even_a_connection_is_opened(post: Post) -> None:
    email_ids = confirmations()
    post.deliver(email_ids)
    again = post.deliver(email_ids)
    assert (again.sent, again.skipped) == (0, 2)
    assert (len(post.mailer.received), post.mailer.connections) == (2, 1)


@on_sqlite
def test_no_statement_of_a_delivery_looks_through_a_table(post: Post, database: Engine) -> None:
    email_ids = confirmations(lessons=2)
    with plans_of(database) as plans:
        assert post.deliver(email_ids).sent == 4
    steps = [step.split() for plan in plans for step in plan]
    searched, scanned = (
        {words[1] for words in steps if words[0] == how} & Base.metadata.tables.keys()
        for how in ("SEARCH", "SCAN")
    )
    assert searched == {"email_messages", "users", "bookings", "services"}
    assert scanned == set()


def test_an_id_that_is_named_twice_or_unknown_does_no_harm(post: Post) -> None:
    (first, second) = confirmations()
    summary = post.deliver([first, first, second, 999])
    assert (summary.sent, summary.skipped, len(post.mailer.received)) == (2, 1, 2)


def test_a_mail_is_never_sent_inside_a_transaction(post: Post) -> None:
    email_ids = confirmations()
    with pytest.raises(NetworkInTransactionError), db.transaction():
        post.deliver(email_ids)
    assert post.mailer.received == []


def killed_after_acceptance(post: Post, email_ids: Sequence[int]) -> None:
    """A delivery whose worker dies when the server has the first mail, before the commit."""

    def die() -> None:
        raise WorkerKilledError

    post.mailer.after_acceptance = die
    with pytest.raises(WorkerKilledError):
        post.deliver(email_ids)
    post.mailer.after_acceptance = lambda: None


def test_a_mail_whose_worker_died_after_smtp_is_left_alone_while_its_lease_runs(
    post: Post,
) -> None:
    email_ids = confirmations()
    killed_after_acceptance(post, email_ids)
    post.clock.now += LEASE / 3
    summary = post.deliver(email_ids)
    assert (summary.sent, summary.skipped) == (1, 1)
    assert summary.retry_after == pytest.approx((LEASE * 2 / 3).total_seconds())
    assert len(set(post.mailer.message_ids())) == len(post.mailer.received) == 2
    assert mail(email_ids[0]).uncertain == 0


def test_after_the_lease_it_goes_out_once_more_with_the_same_message_id_and_is_counted(
    post: Post,
) -> None:
    email_ids = confirmations()
    killed_after_acceptance(post, email_ids)
    post.deliver(email_ids)
    post.clock.now += LEASE
    summary = post.deliver(email_ids)
    assert (summary.sent, summary.retry_after) == (1, None)
    first, _, again = post.mailer.message_ids()
    assert first == again
    assert (mail(email_ids[0]).state, mail(email_ids[0]).uncertain) == (EmailState.SENT, 1)
    assert mail(email_ids[1]).uncertain == 0


def test_what_was_marked_before_the_kill_is_never_doubled(post: Post) -> None:
    email_ids = confirmations(lessons=3)
    accepted = 0

    def die_at_the_fourth() -> None:
        nonlocal accepted
        accepted += 1
        if accepted == 4:
            raise WorkerKilledError

    post.mailer.after_acceptance = die_at_the_fourth
    with pytest.raises(WorkerKilledError):
        post.deliver(email_ids)
    post.clock.now += LEASE
    post.deliver(email_ids)
    ids = post.mailer.message_ids()
    doubled = [one for one in set(ids) if ids.count(one) > 1]
    assert doubled == [ids[3]]
    assert sum(mail(email_id).uncertain for email_id in email_ids) == 1


def test_the_last_mail_is_marked_before_the_connection_is_closed(post: Post) -> None:
    email_ids = confirmations()
    seen: list[EmailState] = []
    post.mailer.before_close = lambda: seen.extend(states())
    post.deliver(email_ids)
    assert seen == [EmailState.SENT] * 2


def test_a_claim_that_fails_does_not_take_the_mark_of_the_mail_before_with_it(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    email_ids = confirmations()
    read = email_letters.read

    def fail_at_the_second(
        connection: Connection, email_id: int, *rest: Any, **more: Any
    ) -> object:
        if email_id == email_ids[1]:
            raise ZeroDivisionError
        return read(connection, email_id, *rest, **more)

    monkeypatch.setattr(email_letters, "read", fail_at_the_second)
    with pytest.raises(ZeroDivisionError):
        post.deliver(email_ids)
    assert states() == [EmailState.SENT, EmailState.QUEUED]


@pytest.fixture
def cut_off(database: Engine) -> Iterator[Callable[[], None]]:
    """Ends the delivery's connection to the database."""
    elsewhere = db.create_database_engine(database.url.render_as_string(hide_password=False))
    yield lambda: cut_off_others(elsewhere)
    elsewhere.dispose()


@on_postgresql
@pytest.mark.parametrize("mails", [1, 2])
@pytest.mark.parametrize("moment", ["before_data", "after_acceptance"])
def test_a_database_connection_that_is_lost_while_a_mail_is_sent_doubles_nothing(
    post: Post, cut_off: Callable[[], None], mails: int, moment: str
) -> None:
    email_ids = confirmations()[:mails]
    setattr(post.mailer, moment, cut_off)
    assert post.deliver(email_ids).sent == mails
    post.clock.now += LEASE
    assert post.deliver(email_ids).skipped == mails
    assert len(post.mailer.received) == mails
    assert {(mail(one).state, mail(one).uncertain) for one in email_ids} == {(EmailState.SENT, 0)}


@on_postgresql
def test_a_refused_mail_waits_again_although_the_database_connection_was_lost_meanwhile(
    post: Post, cut_off: Callable[[], None]
) -> None:
    (email_id, _) = confirmations()

    def refuse() -> None:
        cut_off()
        raise MailTemporarilyRefusedError("SMTP 450 to RCPT")

    post.mailer.before_data = refuse
    assert post.deliver([email_id]).left == (email_id,)
    assert mail(email_id).state is EmailState.QUEUED


def test_a_claim_is_refused_where_somebody_has_claimed_and_given_up_meanwhile(
    post: Post, database: Engine
) -> None:
    options: dict[str, Any] = {"now": NOON, "include_failed": False}
    with db.tables() as tables:
        (first, second) = tables.run(
            lambda reader: email_claims.all_claimable(reader, confirmations(), **options)
        )
        claim = partial(email_claims.claim, lease=LEASE, **options)
        theirs = tables.run(partial(claim, mail=first))
        assert theirs is not None
        tables.run(lambda writer: email_claims.put_back(writer, theirs, "SMTP 450 to RCPT"))
        assert tables.run(partial(claim, mail=first)) is None
        ours = tables.run(partial(claim, mail=second))
        assert ours is not None
        # What was accepted is marked, whatever becomes of the claim beside it.
        assert tables.run(partial(claim, mail=first, accepted=ours)) is None
    assert (mail(first.email_id).state, mail(first.email_id).claims) == (EmailState.QUEUED, 1)
    assert mail(second.email_id).state is EmailState.SENT


def test_two_workers_with_the_same_mails_send_each_of_them_once(post: Post) -> None:
    email_ids = confirmations(lessons=15)
    together = Barrier(2)

    def work(_: int) -> DeliverySummary:
        together.wait()
        return post.deliver(email_ids)

    with ThreadPoolExecutor(2) as workers:
        summaries = list(workers.map(work, range(2)))
    ids = post.mailer.message_ids()
    assert len(set(ids)) == len(ids) == 30
    assert sum(summary.sent for summary in summaries) == 30
    assert all(summary.error is None for summary in summaries)


def test_a_mail_that_another_worker_holds_is_waited_for_and_the_others_go_out(post: Post) -> None:
    with db.transaction() as session:
        lesson = a_lesson(session, starts_at=IN_TWO_DAYS)
        held = a_mail(
            session,
            about=lesson,
            state=EmailState.SENDING,
            leased_until=NOON + timedelta(seconds=75),
        )
        free = a_mail(session, about=lesson, to=lesson.instructor)
    summary = post.deliver([held.id, free.id])
    assert (summary.sent, summary.skipped, summary.retry_after) == (1, 1, 75.0)
    assert (summary.left, summary.error) == ((), None)


def test_a_mail_that_was_taken_over_meanwhile_is_not_sent_by_its_first_worker(post: Post) -> None:
    (email_id, _) = confirmations()

    def somebody_else_claims_it() -> None:
        with db.transaction() as session:
            session.execute(update(EmailMessage).values(claims=EmailMessage.claims + 1))

    post.mailer.before_data = somebody_else_claims_it
    summary = post.deliver([email_id])
    assert (summary.sent, summary.skipped, post.mailer.received) == (0, 1, [])
    assert mail(email_id).state is EmailState.SENDING


def test_a_slow_worker_that_was_accepted_spares_the_reader_the_second_mail(post: Post) -> None:
    (email_id, _) = confirmations()
    other = Post(FakeMailer(), FakeClock(NOON + LEASE))
    taken_over, answered = Event(), Event()

    def before_the_other_sends() -> None:
        taken_over.set()
        assert answered.wait(timeout=10)

    other.mailer.before_data = before_the_other_sends
    with ThreadPoolExecutor(1) as elsewhere:
        taking_over: list[Future[DeliverySummary]] = []

        def while_the_answer_is_on_its_way() -> None:
            taking_over.append(elsewhere.submit(other.deliver, [email_id]))
            assert taken_over.wait(timeout=10)

        post.mailer.after_acceptance = while_the_answer_is_on_its_way
        assert post.deliver([email_id]).sent == 1
        answered.set()
        assert taking_over[0].result().sent == 0
    assert (len(post.mailer.received), other.mailer.received) == (1, [])
    assert (mail(email_id).state, mail(email_id).uncertain) == (EmailState.SENT, 1)


@pytest.mark.parametrize(
    ("waits", "ahead"), [(2, WAIT), (3, timedelta(0))], ids=["before DATA", "after it"]
)
def test_a_mail_whose_lease_has_no_room_for_the_answer_waits_for_the_next_delivery(
    post: Post, waits: int, ahead: timedelta
) -> None:
    (email_id, other_id) = confirmations()
    post.mailer.ahead = ahead.total_seconds()

    def slow_server(more: timedelta) -> None:
        post.clock.now += waits * WAIT + more

    post.mailer.before_data = lambda: slow_server(timedelta(0))
    assert post.deliver([other_id]).sent == 1
    post.mailer.received.clear()
    post.mailer.before_data = lambda: slow_server(TICK)
    summary = post.deliver([email_id])
    assert (summary.sent, summary.left, post.mailer.received) == (0, (email_id,), [])
    assert isinstance(summary.error, MailServerUnavailableError)
    assert str(summary.error) == "mail.example:25: too slow for the lease"
    post.mailer.before_data = lambda: None
    assert post.deliver([email_id]).sent == 1
    assert mail(email_id).uncertain == 0


def test_after_a_withheld_mail_the_rest_goes_over_a_new_connection(post: Post) -> None:
    email_ids = confirmations(lessons=2)
    lateness = iter([timedelta(0), 4 * WAIT])

    def slow_at_the_second() -> None:
        post.clock.now += next(lateness, timedelta(0))

    post.mailer.before_data = slow_at_the_second
    summary = post.deliver(email_ids)
    assert (summary.sent, summary.left, post.mailer.connections) == (3, (email_ids[1],), 2)


def test_a_server_that_is_away_leaves_the_mails_as_they_are(post: Post) -> None:
    email_ids = confirmations()
    post.mailer.down = True
    summary = post.deliver(email_ids)
    assert (summary.left, summary.retry_after) == (tuple(email_ids), None)
    assert isinstance(summary.error, MailServerUnavailableError)
    assert (mail(email_ids[0]).state, mail(email_ids[0]).claims) == (EmailState.QUEUED, 0)


def test_a_mail_refused_for_now_is_queued_again_and_the_others_go_out(post: Post) -> None:
    email_ids = confirmations()
    busy = MailTemporarilyRefusedError("SMTP 450 to RCPT")
    post.mailer.faults[address(email_ids[0])] = [busy]
    summary = post.deliver(email_ids)
    assert (summary.sent, summary.left, summary.error) == (1, (email_ids[0],), busy)
    assert mail(email_ids[0]).error == "SMTP 450 to RCPT"
    assert post.deliver(email_ids).sent == 1
    assert (mail(email_ids[0]).error, mail(email_ids[0]).uncertain) == (None, 0)


def test_a_mail_that_is_out_keeps_nothing_of_its_earlier_tries(post: Post) -> None:
    email_ids = confirmations()
    for email_id in email_ids:
        post.mailer.faults[address(email_id)] = [MailTemporarilyRefusedError("SMTP 450 to RCPT")]
    assert post.deliver(email_ids).sent == 0
    # The first is marked with the claim of the second, the second by itself.
    assert post.deliver(email_ids).sent == 2
    assert {(mail(one).error, mail(one).leased_until) for one in email_ids} == {(None, None)}


def test_a_mail_refused_for_good_is_a_dead_letter_of_its_own_and_the_others_go_out(
    post: Post,
) -> None:
    email_ids = confirmations()
    post.mailer.faults[address(email_ids[0])] = [MailRefusedError("SMTP 550 5.1.1 to RCPT")]
    summary = post.deliver(email_ids)
    assert (summary.sent, summary.failed, summary.left) == (1, 1, ())
    assert mail(email_ids[0]).state is EmailState.FAILED
    assert {mail(email_id).failed_at for email_id in email_ids} == {post.clock.now, None}
    (letter,) = dead_letters()
    assert (letter.task, letter.args) == (DELIVER, [[email_ids[0]], True])
    assert letter.errors[0]["error"] == mail(email_ids[0]).error == "SMTP 550 5.1.1 to RCPT"


def test_only_a_dead_letter_that_is_retried_sends_a_failed_mail_again(post: Post) -> None:
    (email_id, _) = confirmations()
    post.mailer.faults[address(email_id)] = [MailRefusedError("SMTP 550 to RCPT")]
    post.deliver([email_id])
    assert post.deliver([email_id]).skipped == 1
    (letter,) = dead_letters()
    ids, include_failed = letter.args
    assert post.deliver(ids, include_failed=include_failed).sent == 1
    assert mail(email_id).error is None


def failed_mails(post: Post, lessons: int) -> list[int]:
    """Ids of mails that were refused for good."""
    email_ids = confirmations(lessons)
    for email_id in email_ids:
        post.mailer.faults[address(email_id)] = [MailRefusedError("SMTP 550 to RCPT")]
    post.deliver(email_ids)
    return email_ids


def test_failed_mails_that_are_to_be_sent_again_wait_for_a_server_that_is_away(
    post: Post,
) -> None:
    email_ids = failed_mails(post, lessons=1)
    post.mailer.down = True
    summary = post.deliver(email_ids, include_failed=True)
    assert summary.left == tuple(email_ids)
    assert isinstance(summary.error, MailServerUnavailableError)


def test_failed_mails_that_there_was_no_time_for_are_left(post: Post) -> None:
    email_ids = failed_mails(post, lessons=2)
    post.mailer.after_acceptance = lambda: post.clock.advance(seconds=45)
    summary = post.deliver(email_ids, settings=SHORT_TASKS, include_failed=True)
    assert (summary.sent, summary.left, summary.error) == (2, tuple(email_ids[2:]), None)


def test_a_mail_that_fails_again_is_a_new_dead_letter_and_not_left(post: Post) -> None:
    (email_id, _) = failed_mails(post, lessons=1)
    post.mailer.faults[address(email_id)] = [MailRefusedError("SMTP 550 to RCPT")]
    summary = post.deliver([email_id], include_failed=True)
    assert (summary.failed, summary.left, len(dead_letters())) == (1, (), 3)


def test_where_the_connection_breaks_after_some_use_another_one_carries_on(post: Post) -> None:
    email_ids = confirmations(lessons=2)
    post.mailer.faults[address(email_ids[1])] = [MailServerUnavailableError("closed at MAIL")]
    summary = post.deliver(email_ids)
    assert (summary.sent, summary.left, post.mailer.connections) == (3, (email_ids[1],), 2)
    assert mail(email_ids[1]).uncertain == 0


def test_where_a_new_connection_breaks_at_once_the_rest_waits(post: Post) -> None:
    email_ids = confirmations(lessons=2)
    gone = MailServerUnavailableError("closed at MAIL")
    post.mailer.faults[address(email_ids[0])] = [gone]
    summary = post.deliver(email_ids)
    assert (summary.sent, summary.left, summary.error) == (0, tuple(email_ids), gone)
    assert post.mailer.connections == 1


def test_a_mail_at_which_the_server_always_hangs_up_does_not_keep_the_others_waiting(
    post: Post,
) -> None:
    email_ids = confirmations(lessons=2)
    hang_up = MailServerUnavailableError("closed at RCPT")
    post.mailer.faults[address(email_ids[0])] = [hang_up] * 3
    post.deliver(email_ids)
    summary = post.deliver(email_ids)
    assert (summary.sent, summary.left) == (3, (email_ids[0],))


def test_a_mail_of_unknown_fate_waits_out_its_lease_and_the_others_go_out(post: Post) -> None:
    email_ids = confirmations(lessons=2)
    post.mailer.faults[address(email_ids[1])] = [MailFateUnknownError("closed")]
    summary = post.deliver(email_ids)
    assert (summary.sent, summary.left, summary.error) == (3, (), None)
    assert summary.retry_after == LEASE.total_seconds()
    assert repr(summary.claimed) == "MailFateUnknownError('closed')"
    assert mail(email_ids[1]).state is EmailState.SENDING
    assert mail(email_ids[1]).uncertain_at is None
    post.clock.now += LEASE
    assert post.deliver(email_ids).sent == 1
    assert mail(email_ids[1]).uncertain == 1
    assert mail(email_ids[1]).uncertain_at == post.clock.now


def test_no_mail_is_begun_that_the_time_limit_of_the_task_could_interrupt(post: Post) -> None:
    email_ids = confirmations(lessons=2)
    post.mailer.after_acceptance = lambda: post.clock.advance(seconds=45)
    summary = post.deliver(email_ids, settings=SHORT_TASKS)
    assert (summary.sent, summary.left) == (2, tuple(email_ids[2:]))
    assert (summary.error, summary.retry_after) == (None, None)


def test_a_confirmation_is_withdrawn_when_the_lesson_is_cancelled_first(post: Post) -> None:
    email_ids = confirmations()
    with db.transaction() as session:
        session.execute(update(Booking).values(status=BookingStatus.CANCELLED))
    summary = post.deliver(email_ids)
    assert (summary.cancelled, summary.sent, post.mailer.received) == (2, 0, [])
    assert set(states()) == {EmailState.CANCELLED}


@pytest.mark.parametrize(
    ("kind", "lateness"),
    [
        (EmailKind.REMINDER_24H, timedelta(hours=23)),
        (EmailKind.REMINDER_1H, timedelta(hours=1)),
    ],
)
def test_a_reminder_that_waited_too_long_is_withdrawn(
    post: Post, kind: EmailKind, lateness: timedelta
) -> None:
    with db.transaction() as session:
        lead = timedelta(hours=24) if kind is EmailKind.REMINDER_24H else timedelta(hours=1)
        lesson = a_lesson(session, starts_at=NOON + lead)
        on_time = a_mail(session, about=lesson, kind=kind)
        late = a_mail(session, about=lesson, kind=kind, to=lesson.instructor)
    post.clock.now = NOON + lateness - TICK
    assert post.deliver([on_time.id]).sent == 1
    post.clock.now = NOON + lateness
    assert post.deliver([late.id]).cancelled == 1
    assert len(post.mailer.received) == 1


def test_a_cancelled_lesson_ends_with_its_notice_as_the_only_mail(post: Post) -> None:
    email_ids = confirmations()
    with db.transaction() as session:
        booking_id = session.scalars(select(Booking.id)).one()
        bookings.cancel(session, booking_id, now=NOON)
        notices = email.queue_cancellation(session, booking_id, now=NOON)
    post.deliver(email_ids)
    post.deliver(notices)
    subjects = {received["Subject"].split(":")[0] for received in post.mailer.received}
    assert (subjects, len(post.mailer.received)) == ({"Cancelled"}, 2)


@pytest.mark.parametrize(
    "unusable", ["nobody", "a@x.example\r\nRCPT TO:<b@x.example>", "ü@x.example"]
)
def test_a_reader_without_a_usable_address_does_not_stop_the_others(
    post: Post, unusable: str
) -> None:
    email_ids = confirmations()
    with db.transaction() as session:
        session.execute(
            update(User).where(User.id == mail(email_ids[0]).recipient_id).values(email=unusable)
        )
    summary = post.deliver(email_ids)
    assert (summary.sent, summary.failed) == (1, 1)
    assert mail(email_ids[0]).error == "the address cannot be used"


def test_a_mail_whose_lesson_is_gone_is_a_dead_letter(post: Post) -> None:
    with db.transaction() as session:
        lesson = a_lesson(session, starts_at=IN_TWO_DAYS)
        orphan = a_mail(session, about=lesson)
        session.delete(lesson)
    assert post.deliver([orphan.id]).failed == 1
    assert mail(orphan.id).error == "its booking is gone"
    assert len(dead_letters()) == 1


def test_a_mail_that_cannot_be_written_does_not_stop_the_others(post: Post) -> None:
    at_the_end_of_time = datetime(9999, 12, 31, 23, 0, tzinfo=UTC)
    with db.transaction() as session:
        lesson = a_lesson(session, starts_at=IN_TWO_DAYS)
        lesson.starts_at = at_the_end_of_time  # no such hour exists in the reader's zone
        lesson.ends_at = at_the_end_of_time + TICK
        east = a_student(session, time_zone="Asia/Tokyo")
        unwritable = a_mail(session, about=lesson, to=east)
    summary = post.deliver([unwritable.id, *confirmations()])
    assert (summary.sent, summary.failed) == (2, 1)
    assert mail(unwritable.id).error == "cannot be written: OverflowError"
    assert post.mailer.connections == 2


def test_no_address_and_no_name_is_in_a_log_or_an_error(
    post: Post, caplog: pytest.LogCaptureFixture
) -> None:
    email_ids = confirmations(lessons=2)
    faults: list[Exception] = [
        MailRefusedError("SMTP 550 to RCPT"),
        MailTemporarilyRefusedError("SMTP 450 to RCPT"),
        MailFateUnknownError("closed"),
    ]
    for email_id, fault in zip(email_ids, faults, strict=False):
        post.mailer.faults[address(email_id)] = [fault]
    with caplog.at_level("DEBUG"):
        post.deliver(email_ids)
    with db.reading() as session:
        people = session.execute(select(User.name, User.email)).all()
        errors = " ".join(session.scalars(select(func.coalesce(EmailMessage.error, ""))))
    said = caplog.text + errors + str([letter.errors for letter in dead_letters()])
    assert not [word for person in people for word in person if word in said]


def test_a_server_that_never_answers_gets_a_bounded_number_of_copies(post: Post) -> None:
    """Each takeover may be one more copy in the reader's mailbox."""
    (email_id, _) = confirmations()

    def lose_the_answer() -> None:
        raise MailFateUnknownError("no answer to the final dot")

    post.mailer.after_acceptance = lose_the_answer
    limit = SETTINGS.max_deliveries
    for _ in range(limit + 3):
        post.deliver([email_id])
        post.clock.advance(seconds=SETTINGS.mail_lease_seconds)
    assert len(post.mailer.received) == limit + 1
    assert mail(email_id).state is EmailState.FAILED
    post.mailer.after_acceptance = lambda: None
    assert post.deliver([email_id], include_failed=True).sent == 1
