"""Each invariant can be broken: a mistake in ``app`` is found, and by its name."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, time, timedelta
from random import Random
from typing import Any

import pytest
from sqlalchemy import func, select, update

from app import clock, db, outbox, routing
from app.adapters.slot_cache import CachedSlots
from app.models import Booking, EmailKind, EmailMessage, PasswordReset, User
from app.outbox import guard, publish, schedule
from app.outbox.broker import OutboxMessage
from app.outbox.pump import Pump, PumpRound
from app.services import email, email_claims, password_resets
from app.tasks import celery_app
from app.tasks.broker import RedisBroker
from simulations.engine.faults import Fault
from simulations.engine.pool import VirtualPool
from simulations.marketplace.invariants import INVARIANTS, BrokenInvariantError
from simulations.marketplace.plan import Plan
from simulations.marketplace.replay import Replay

pytestmark = pytest.mark.timeout(120)

HEALTH_CHECK = "app.tasks.health.health_check"
EVENING = Plan(day=date(2026, 7, 15), bookings=120, seed=2, storm=(time(0, 20), 60))


def broken_by(plan: Plan = EVENING, *, hours: float = 1.0) -> BrokenInvariantError | None:
    with Replay(plan) as replay:
        replay.end = replay.start + timedelta(hours=hours)
        return replay.run().broken


def name_of(broken: BrokenInvariantError | None) -> str | None:
    return None if broken is None else broken.name


def test_nothing_is_broken_without_a_mistake() -> None:
    assert broken_by(hours=2.5) is None


def test_urgency_on_the_wire_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "wire_priority", lambda urgency: urgency)
    broken = broken_by(replace(EVENING, workers=1, concurrency=1))
    assert name_of(broken) == "urgent work first"
    assert broken is not None
    assert any("received" in line for line in broken.lines)


def delivered_beside_bookings(kind: EmailKind) -> BrokenInvariantError | None:
    """A mail of this kind is delivered with the urgency of password resets."""
    with Replay(EVENING) as replay:
        replay.end = replay.start + timedelta(hours=1)

        def plan_both() -> None:
            with db.transaction() as session:
                user = session.scalars(select(User)).first()
                assert user is not None
                password_resets.request(session, user.email, now=clock.utcnow(), rng=Random(1))
                reset_id = session.scalar(select(func.max(PasswordReset.id)))
                assert reset_id is not None
                password_resets.queue_mail(session, reset_id, now=clock.utcnow())
            with db.transaction() as session:
                mail = session.scalars(select(EmailMessage.id).where(EmailMessage.kind == kind))
                outbox.enqueue(session, "app.tasks.bookings.send_due_reminders")
                email.enqueue_deliveries(session, mail.all()[:1], urgency=password_resets.URGENCY)

        replay.deployment.call_at(replay.start + timedelta(minutes=41), plan_both)
        return replay.run().broken


def test_the_mail_of_a_password_reset_goes_before_all_queues() -> None:
    assert delivered_beside_bookings(EmailKind.PASSWORD_RESET) is None


def test_another_mail_that_goes_before_bookings_is_found() -> None:
    broken = delivered_beside_bookings(EmailKind.BOOKING_CONFIRMATION)
    assert name_of(broken) == "urgent work first"


def test_a_confirmation_that_nobody_plans_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(email, "queue_confirmation", lambda *_args, **_options: [])
    assert name_of(broken_by()) == "every mail arrives"


def test_a_mail_that_anybody_may_claim_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The claim's condition gone, a second delivery sends its mails again."""
    with Replay(EVENING) as replay:
        deployment = replay.deployment
        deployment.run_until(replay.start + timedelta(minutes=40))
        monkeypatch.setattr(email_claims, "claimable", lambda *_, **__: EmailMessage.id > 0)
        claiming = email_claims.claiming(include_failed=False)
        monkeypatch.setitem(email_claims._CLAIM, False, claiming)

        def deliver_again() -> None:
            with db.transaction() as session:
                email.enqueue_deliveries(session, list(session.scalars(select(EmailMessage.id))))

        deployment.call_at(deployment.now, deliver_again)
        with pytest.raises(BrokenInvariantError, match="each mail once"):
            deployment.run_for(timedelta(minutes=5))


def test_a_reminder_for_a_lesson_that_has_begun_is_found() -> None:
    with Replay(EVENING) as replay:
        deployment = replay.deployment
        deployment.run_until(replay.start)
        with db.reading() as session:
            begun, later = (
                session.scalars(select(Booking.id).order_by(Booking.starts_at)).all()[place]
                for place in (0, -1)
            )
        deployment.trace.emit("mail", mail=f"reminder_1h.{later}.1", copy=1)
        deployment.run_for(timedelta(seconds=1))
        deployment.trace.emit("mail", mail=f"reminder_1h.{begun}.1", copy=1)
        with pytest.raises(BrokenInvariantError, match="after its lesson began"):
            deployment.run_for(timedelta(seconds=1))


def test_a_run_that_is_planned_twice_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beat's compare-and-set without its comparison: two beats, two runs."""

    def replace_whatever_is_there(session: Any, entry: Any, seen: Any, *, last_due: Any) -> bool:
        session.execute(
            update(schedule.BeatEntry)
            .where(schedule.BeatEntry.name == entry.name)
            .values(last_due=max(last_due, seen.last_due))
        )
        return True

    monkeypatch.setattr(schedule, "_replace", replace_whatever_is_there)
    faults = (Fault("second-beat", time(0, 5), timedelta(minutes=30)),)
    # Of one process: the second beat reads what the first has just written, so it has to look
    # back in time for the mistake to show.
    remembered = schedule.remembered
    before: dict[str, Any] = {}

    def a_little_stale(session: Any) -> Any:
        now = remembered(session)
        stale = {**now, **before}
        before.clear()
        before.update(now)
        return stale

    from app.tasks import scheduler

    monkeypatch.setattr(scheduler, "remembered", a_little_stale)
    assert name_of(broken_by(replace(EVENING, faults=faults))) == "each due instant once"


@pytest.mark.parametrize(
    ("harm", "name"),
    [
        ("UPDATE outbox_entries SET state = 'dead'", "no entry dies without a fault of its own"),
        ("UPDATE outbox_entries SET state = 'pending'", "every outbox row"),
    ],
)
def test_tables_that_are_wrong_at_the_end_are_found(harm: str, name: str) -> None:
    with Replay(EVENING) as replay:
        replay.end = replay.start + timedelta(hours=2.5)
        replay.deployment.run_until(replay.end + timedelta(hours=1))
        with db.engine().begin() as connection:
            connection.exec_driver_sql(harm)
        broken = conclusion(replay)
    assert broken is not None
    assert broken.name.startswith(name)


MISCOUNTS = (
    *(
        (f"UPDATE daily_metrics SET {column} = {column} {{}} 1", "+", "-")  # noqa: S608 - ours
        for column in (
            *("bookings_created", "bookings_completed", "bookings_cancelled", "no_shows"),
            *("revenue_cents", "active_students", "active_instructors"),
            *("mails_sent", "mails_failed", "tasks_done", "tasks_dead"),
        )
    ),
    ("UPDATE service_metrics SET revenue_cents = revenue_cents {} 1", "+", "-"),
    ("UPDATE instructor_metrics SET active_students = active_students {} 1", "-", "+"),
    ("UPDATE service_metrics SET date = '{}'", "2026-07-13", "2026-07-14"),
    ("UPDATE instructor_metrics SET date = '{}'", "2026-07-13", "2026-07-14"),
)


def test_each_figure_that_is_not_a_recounts_is_found() -> None:
    name = "metrics equal a recount"
    with Replay(EVENING) as replay:
        replay.deployment.run_until(replay.start + timedelta(hours=2.5))
        assert conclusion(replay, name) is None
        unnoticed = []
        for statement, harm, mend in MISCOUNTS:
            with db.engine().begin() as connection:
                harmed = connection.exec_driver_sql(statement.format(harm)).rowcount
            if conclusion(replay, name) is None or not harmed:
                unnoticed.append(statement)
            with db.engine().begin() as connection:
                connection.exec_driver_sql(statement.format(mend))
            replay.deployment.loop.stop_for = None
    assert unnoticed == []


def test_slots_that_are_not_the_tables_are_found() -> None:
    with Replay(EVENING) as replay:
        replay.deployment.run_until(replay.start + timedelta(hours=1))
        first = replay.people.instructors[0].id
        entry = replay.slots.read([first])[first]
        wrong = CachedSlots(
            instructor_id=first,
            version=entry.version,
            computed_at=entry.computed_at,
            time_zone=entry.time_zone,
            starts={minutes: starts[1:] for minutes, starts in entry.starts.items()},
        )
        replay.slots.write([wrong], epoch=replay.slots.epoch())
        broken = conclusion(replay, "free slots equal a recomputation")
    assert broken is not None


def test_overlapping_lessons_are_found() -> None:
    with Replay(EVENING) as replay:
        replay.deployment.run_until(replay.start + timedelta(minutes=5))
        with db.engine().begin() as connection:
            for (trigger,) in connection.exec_driver_sql(
                "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'bookings'"
            ).all():
                connection.exec_driver_sql(f"DROP TRIGGER {trigger}")
            connection.exec_driver_sql("UPDATE bookings SET ends_at = '2027-01-01 00:00:00.000000'")
        broken = conclusion(replay, "nobody is double-booked")
    assert broken is not None


def conclusion(replay: Replay, only: str | None = None) -> BrokenInvariantError | None:
    for invariant in replay.invariants:
        if only is None or invariant.name == only:
            invariant.conclude()
            stopped = replay.deployment.loop.stop_for
            if isinstance(stopped, BrokenInvariantError):
                return stopped
    return None


def test_a_message_that_nobody_takes_is_found() -> None:
    with Replay(EVENING) as replay:
        replay.deployment.run_until(replay.start + timedelta(minutes=5))
        with replay.deployment.broker.unguarded():
            replay.deployment.broker.server.lpush("maintenance", "{}")
        broken = conclusion(replay, "no message lost or left")
    assert broken is not None


def test_a_task_that_nothing_stops_is_found() -> None:
    with Replay(EVENING) as replay:
        replay.deployment.run_until(replay.start)
        fields = {"task": "app.tasks.cache.update_availability", "id": "x", "worker": "worker1"}
        replay.deployment.trace.emit("started", **fields)
        replay.deployment.run_for(timedelta(seconds=601))
        replay.deployment.trace.emit("succeeded", **fields)
        stopped = replay.deployment.loop.stop_for
    assert isinstance(stopped, BrokenInvariantError)
    assert stopped.name == "no task beyond its limits"


def test_a_message_that_is_acknowledged_before_its_task_has_run_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, task in celery_app.tasks.items():
        if name.startswith("app."):
            monkeypatch.setattr(task, "acks_late", False)
    assert name_of(broken_by()) == "acknowledged at the end"


def test_a_message_that_is_sent_again_though_it_waits_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A pump that takes whatever is older than its margin for gone."""
    monkeypatch.setattr(RedisBroker, "held", lambda _self: set())
    monkeypatch.setattr(RedisBroker, "oldest", lambda _self, lists: [clock.utcnow() for _ in lists])
    slow = (Fault("smtp-slow", time(0, 20), timedelta(minutes=15)),)
    rush = replace(EVENING, workers=1, concurrency=1, faults=slow, storm=(time(0, 20), 400))
    with Replay(rush) as replay:
        replay.deployment.run_until(replay.start + timedelta(minutes=30))
        broken = conclusion(replay, "nothing resent without a loss")
    assert broken is not None


def test_work_that_is_done_and_sent_again_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard gone, nothing marks a row done, and the pump finds its message gone."""
    monkeypatch.setattr(guard, "mark_done", lambda *_args, **_options: None)
    assert name_of(broken_by()) == "nothing resent without a loss"


@pytest.mark.parametrize("committed", [False, True], ids=["open transaction", "another stamp"])
def test_a_message_that_is_sent_before_its_row_says_so_is_found(committed: bool) -> None:
    def send_too_early() -> None:
        with db.transaction() as session:
            now = clock.utcnow()
            later = now + timedelta(hours=1)
            entry_id = outbox.enqueue(session, HEALTH_CHECK, at=later if committed else now)
            if not committed:
                _send(entry_id, now)
        if committed:
            _send(entry_id, now)

    with Replay(EVENING) as replay:
        replay.deployment.call_at(replay.start, send_too_early)
        with pytest.raises(BrokenInvariantError, match="nothing sent before its commit"):
            replay.deployment.run_until(replay.start + timedelta(seconds=1))


def _send(entry_id: str, published_at: datetime) -> None:
    broker = publish.attached()
    assert broker is not None
    broker.push(
        [
            OutboxMessage(
                id=entry_id,
                task=HEALTH_CHECK,
                args=[],
                kwargs={},
                queue="celery",
                priority=4,
                tries=0,
                published_at=published_at,
            )
        ]
    )


@pytest.mark.parametrize("state", ["pending", "done"])
def test_an_unpublishable_entry_that_is_no_dead_letter_at_the_end_is_found(state: str) -> None:
    with Replay(EVENING) as replay:
        replay.deployment.run_until(replay.start + timedelta(minutes=5))
        with db.engine().begin() as connection:
            entry_id = connection.exec_driver_sql(
                f"UPDATE outbox_entries SET state = '{state}' RETURNING id"  # noqa: S608 - ours
            ).first()
        assert entry_id is not None
        replay.planted.add(entry_id.id)
        broken = conclusion(replay, "no entry dies without a fault of its own")
    assert broken is not None


def test_an_entry_that_no_relay_publishes_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """All the rest goes on: what is due at once is published after its commit."""
    monkeypatch.setattr(Pump, "run", lambda _self: PumpRound())
    assert name_of(broken_by_what_is_due_later()) == "something always starts"


def test_workers_that_start_nothing_and_are_restarted_for_it_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The watchdog ends them every minute."""
    monkeypatch.setattr(VirtualPool, "on_apply", lambda *_args, **_options: None)
    broken = broken_by()
    assert name_of(broken) == "something always starts"


def test_work_that_waits_while_no_worker_can_take_it_breaks_nothing() -> None:
    faults = (Fault("workers-down", time(0, 5), timedelta(minutes=20)),)
    assert broken_by_what_is_due_later(faults) is None


def broken_by_what_is_due_later(faults: tuple[Fault, ...] = ()) -> BrokenInvariantError | None:
    with Replay(replace(EVENING, hours=1, faults=faults)) as replay:

        def plan() -> None:
            with db.transaction() as session:
                later = clock.utcnow() + timedelta(minutes=10)
                outbox.enqueue(session, HEALTH_CHECK, at=later)

        replay.deployment.call_at(replay.start, plan)
        return replay.run().broken


def test_each_invariant_has_a_name_and_a_sentence_of_its_own() -> None:
    assert len({each.name for each in INVARIANTS}) == len(INVARIANTS)
    assert all(each.sentence.endswith(".") for each in INVARIANTS)
