"""Whatever happens to broker, workers and mail server: each mail once, and none lost."""

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select

from app import db, entropy, outbox, schema
from app.domain.bookings import BookingRefusedError
from app.models import Booking, BookingStatus, EmailKind, EmailMessage, OutboxEntry, OutboxState
from app.outbox import BrokerUnavailableError, publish
from app.outbox.broker import OutboxMessage
from app.outbox.pump import Pump
from app.services import bookings
from app.tasks import bookings as booking_tasks
from app.tasks import celery_app
from app.tasks import email as email_tasks
from tests.builders import a_service, a_student, an_instructor
from tests.fakes import FakeBroker, FakeClock
from tests.mailers import FakeMailer, WorkerKilledError
from tests.tracing import deliver

BEGIN = datetime(2026, 7, 1, 12, tzinfo=UTC)
MARGIN = timedelta(seconds=10)
EXAMPLES = 60
STEPS = 30
CALM_ROUNDS = 40
CALM_STEP = timedelta(seconds=60)
SEND_DUE_REMINDERS = booking_tasks.send_due_reminders.name

DEATHS = ("survives", "before its body", "after a mail was accepted", "before its ack")


@cache
def migrated() -> Path:
    path = Path(tempfile.mkdtemp(prefix="each-mail-once-")) / "migrated.sqlite3"
    engine = db.create_database_engine(f"sqlite:///{path}")
    schema.upgrade(engine)
    engine.dispose()
    return path


class EachMailOnce(RuleBasedStateMachine):
    """The marketplace, the real tasks, and everything around them that may break."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = pytest.MonkeyPatch()
        self.folder = Path(tempfile.mkdtemp(prefix="each-mail-once-"))
        shutil.copy(migrated(), self.folder / "test.sqlite3")
        self.engine = db.create_database_engine(f"sqlite:///{self.folder}/test.sqlite3")
        self.engine_before = db.use(self.engine)
        self.now = FakeClock.install(self.patches, BEGIN)
        self.patches.setattr(publish, "monotonic", lambda: self.now.now.timestamp())
        self.broker = FakeBroker(self.now)
        self.broker_before = outbox.attach(self.broker)
        self.random_before = entropy.use(Random(0))
        self.mailer = FakeMailer()
        self.patches.setattr(email_tasks, "mailer_from", lambda settings: self.mailer)
        self.pump = Pump(self.engine, self.broker, margin=MARGIN, max_publishes=100)
        self.dead_workers: list[OutboxMessage] = []
        self.redelivered: set[str] = set()
        self.seen: list[OutboxMessage] = []

    @initialize()
    def open_the_marketplace(self) -> None:
        with db.transaction() as session:
            self.service_id = a_service(session, instructor=an_instructor(session)).id
            self.student_id = a_student(session).id

    @rule(minutes=st.integers(30, 3000), confirmed=st.booleans())
    def book(self, minutes: int, confirmed: bool) -> None:
        starts_at = self.now.now.replace(second=0, microsecond=0) + timedelta(minutes=minutes)
        try:
            with db.transaction() as session:
                booking = bookings.book(
                    session,
                    student_id=self.student_id,
                    service_id=self.service_id,
                    starts_at=starts_at,
                    now=self.now.now,
                )
                if confirmed:
                    bookings.confirm(session, booking.id, now=self.now.now)
        except BookingRefusedError:
            pass

    @rule(decide=st.randoms(use_true_random=False), cancelled=st.booleans())
    def decide(self, decide: Random, cancelled: bool) -> None:
        with db.reading() as session:
            ids = list(session.scalars(select(Booking.id).order_by(Booking.id)))
        if not ids:
            return
        act: Callable[..., Any] = bookings.cancel if cancelled else bookings.confirm
        try:
            with db.transaction() as session:
                act(session, decide.choice(ids), now=self.now.now)
        except BookingRefusedError:
            pass

    @rule()
    def remind(self) -> None:
        with db.transaction() as session:
            outbox.enqueue(session, SEND_DUE_REMINDERS)

    @rule(seconds=st.sampled_from([1, 5, 15, 60, 130, 600, 3600]))
    def time_passes(self, seconds: int) -> None:
        self.now.advance(seconds=seconds)

    @rule()
    def beat_ticks(self) -> None:
        try:
            self.pump.run()
        except BrokerUnavailableError:
            assert self.broker.down

    @precondition(lambda self: self.broker.waiting() > 0)
    @rule(death=st.sampled_from(DEATHS))
    def a_worker_takes_a_message(self, death: str) -> None:
        self.work(death)

    @precondition(lambda self: bool(self.seen))
    @rule(choose=st.randoms(use_true_random=False))
    def a_message_is_delivered_again(self, choose: Random) -> None:
        message = choose.choice(self.seen)
        self.broker.lists[message.queue, message.priority].append(message)

    @precondition(lambda self: bool(self.dead_workers))
    @rule()
    def a_dead_workers_messages_become_visible(self) -> None:
        for message in self.dead_workers:
            self.broker.holding.remove(message)
            self.broker.lists[message.queue, message.priority].appendleft(message)
            self.redelivered.add(message.id)
        self.dead_workers.clear()

    @rule()
    def the_broker_forgets_everything(self) -> None:
        self.broker.lose_everything()
        self.dead_workers.clear()

    @rule(down=st.booleans())
    def the_broker_goes_or_comes(self, down: bool) -> None:
        self.broker.down = down

    @rule(down=st.booleans())
    def the_mail_server_goes_or_comes(self, down: bool) -> None:
        self.mailer.down = down

    @invariant()
    def no_mail_went_out_twice_for_certain(self) -> None:
        for message_id, count in Counter(self.mailer.message_ids()).items():
            assert count <= 1 + self.uncertain().get(message_id, 0), message_id

    def work(self, death: str = "survives") -> None:
        message = self.broker.take_any()
        self.seen.append(message)
        try:
            if death == "before its body":
                raise WorkerKilledError
            if death == "after a mail was accepted":
                self.mailer.after_acceptance = self.die
            task = celery_app.tasks[message.task]
            deliver(task, message, redelivered=message.id in self.redelivered)
            if death == "before its ack":
                raise WorkerKilledError
        except WorkerKilledError:
            self.dead_workers.append(message)
        else:
            self.broker.holding.remove(message)
        finally:
            self.mailer.after_acceptance = lambda: None

    def die(self) -> None:
        raise WorkerKilledError

    def uncertain(self) -> dict[str, int]:
        with db.reading() as session:
            return {
                message_id(mail): mail.uncertain for mail in session.scalars(select(EmailMessage))
            }

    def teardown(self) -> None:
        try:
            self.calm_down()
            self.check_that_nothing_is_lost()
        finally:
            entropy.use(self.random_before)
            outbox.attach(self.broker_before)
            db.use(self.engine_before)
            self.engine.dispose()
            self.patches.undo()
            shutil.rmtree(self.folder)

    def calm_down(self) -> None:
        self.broker.down = self.mailer.down = False
        for _ in range(CALM_ROUNDS):
            self.a_dead_workers_messages_become_visible()
            self.now.advance(seconds=CALM_STEP.total_seconds())
            self.pump.run()
            while self.broker.waiting():
                self.work()
            if not self.is_anything_pending():
                return

    def is_anything_pending(self) -> bool:
        with db.reading() as session:
            pending = select(OutboxEntry.id).where(OutboxEntry.pending()).limit(1)
            return session.scalar(pending) is not None

    def check_that_nothing_is_lost(self) -> None:
        received = Counter(self.mailer.message_ids())
        with db.reading() as session:
            rows = session.scalars(select(OutboxEntry)).all()
            assert {row.state for row in rows} <= {OutboxState.DONE, OutboxState.CANCELLED}
            for booking in session.scalars(select(Booking)):
                if booking.status is BookingStatus.CONFIRMED:
                    self.both_sides_got(booking, EmailKind.BOOKING_CONFIRMATION, received)
                elif booking.confirmed_at is not None:
                    self.both_sides_got(booking, EmailKind.BOOKING_CANCELLATION, received)

    def both_sides_got(self, booking: Booking, kind: EmailKind, received: Counter[str]) -> None:
        for reader in (booking.student_id, booking.instructor_id):
            assert any(f"{kind.value}.{booking.id}.{reader}@" in key for key in received), (
                f"{kind.value} of booking {booking.id} is lost"
            )


def message_id(mail: EmailMessage) -> str:
    return f"<{mail.kind.value}.{mail.subject_id}.{mail.recipient_id}@instainstru.example>"


def test_each_mail_arrives_once_whatever_breaks() -> None:
    celery_app.loader.import_default_modules()  # every task, as a worker does
    run_state_machine_as_test(
        EachMailOnce,
        settings=hypothesis_settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            phases=(Phase.reuse, Phase.generate, Phase.shrink),
        ),
    )
