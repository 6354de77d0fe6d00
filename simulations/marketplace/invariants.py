"""What must hold, whatever goes wrong: each invariant a class with a name and one sentence."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from sqlalchemy import select

from app import db
from app.domain import reminders
from app.domain.calendar import day_of
from app.models import (
    Booking,
    BookingStatus,
    DailyMetrics,
    EmailKind,
    EmailMessage,
    EmailState,
    OutboxEntry,
    OutboxState,
    PasswordReset,
    User,
)
from app.services.availability import free_slots
from app.services.password_resets import VALID_FOR
from simulations.engine.figures import ENDS
from simulations.marketplace.faults import BEAT_FAULTS
from simulations.marketplace.timetable import README, due_instants

if TYPE_CHECKING:
    from simulations.marketplace.replay import Replay

URGENCIES = {
    "bookings": 7,
    "email": 5,
    "notifications": 5,
    "celery": 5,
    "cache": 4,
    "analytics": 3,
    "maintenance": 1,
}
"""The README's table."""
ABOVE_ALL = "app.tasks.email.send_password_reset"
EACH = "daily-analytics"
"""The entry whose missed runs are all made up for: each day has a row of its own."""
SKIPPED = "health-check"
HARD_LIMIT = timedelta(seconds=600)
SLACK = timedelta(seconds=5)


class BrokenInvariantError(Exception):
    """An invariant does not hold; says which, when, what was seen, and the last lines of it."""

    def __init__(self, name: str, at: datetime, what: str, lines: Sequence[str]) -> None:
        self.name = name
        self.at = at
        self.what = what
        self.lines = list(lines)
        super().__init__(f"{name}: {what} (at {at.isoformat()})")


class Invariant:
    """Sees each line of the trace, and is asked once more at the end."""

    name: ClassVar[str]
    sentence: ClassVar[str]

    def __init__(self, replay: Replay) -> None:
        self.replay = replay

    def see(self, now: datetime, event: str, fields: Mapping[str, Any]) -> None:
        """Called as it happens, in the process that does it: to look, and to ask nothing."""

    def conclude(self) -> None:
        """Called when the calm is over."""

    def later(self, check: Any) -> None:
        """Run ``check`` at this instant outside of all processes, where it may read tables."""
        self.replay.deployment.loop.call_at(self.replay.deployment.now, check)

    def broken(self, what: str, *ids: str) -> None:
        """Stop the replay."""
        trace = self.replay.deployment.trace
        loop = self.replay.deployment.loop
        if loop.stop_for is None:
            loop.stop_for = BrokenInvariantError(
                self.name, self.replay.deployment.now, what, trace.about(*ids)
            )


def mail_key(kind: EmailKind, subject_id: int, reader_id: int) -> str:
    """How a mail's Message-ID begins."""
    return f"{kind.value}.{subject_id}.{reader_id}"


class EachMailOnce(Invariant):
    name = "each mail once"
    sentence = (
        "No reader gets a mail twice, but where a mail server's answer was lost with a process."
    )

    def see(self, now: datetime, event: str, fields: Mapping[str, Any]) -> None:
        if event == "mail" and fields["copy"] > 1:
            key, copy = fields["mail"], fields["copy"]
            self.later(lambda: self._check(key, copy))

    def _check(self, key: str, copy: int) -> None:
        kind, subject_id, reader_id = key.split(".")
        with db.reading() as session:
            uncertain = session.scalar(
                select(EmailMessage.uncertain).where(
                    EmailMessage.kind == EmailKind(kind),
                    EmailMessage.subject_id == int(subject_id),
                    EmailMessage.recipient_id == int(reader_id),
                )
            )
        if uncertain is None or copy > uncertain + 1:
            self.broken(f"mail {key} went out {copy} times, {uncertain} times uncertain", key)


class NoLateReminder(Invariant):
    name = "no late reminder"
    sentence = "No reminder goes out when its lesson has begun."

    def see(self, now: datetime, event: str, fields: Mapping[str, Any]) -> None:
        if event == "mail" and fields["mail"].startswith("reminder"):
            key = fields["mail"]
            self.later(lambda: self._check(key, now))

    def _check(self, key: str, sent_at: datetime) -> None:
        with db.reading() as session:
            lesson = session.get_one(Booking, int(key.split(".")[1]))
        if sent_at >= lesson.starts_at:
            late = sent_at - lesson.starts_at
            self.broken(f"reminder {key} went out {late} after its lesson began", key)


class EveryMailArrives(Invariant):
    name = "every mail arrives"
    sentence = (
        "Every confirmation, cancellation, no-show notice, reminder and password reset that the "
        "tables owe has arrived, and no other."
    )

    def __init__(self, replay: Replay) -> None:
        super().__init__(replay)
        self._reminded: list[datetime] = []

    def see(self, now: datetime, event: str, fields: Mapping[str, Any]) -> None:
        if event == "succeeded" and fields["task"] == "app.tasks.bookings.send_due_reminders":
            self._reminded.append(now)

    def conclude(self) -> None:
        owed, allowed = self.owed()
        accepted = set(self.replay.provider.accepted)
        missing = sorted(owed - accepted)
        unwanted = sorted(accepted - owed - allowed)
        if missing:
            self.broken(
                f"{len(missing)} of {len(owed)} mails have not arrived: {missing[:5]}", *missing[:3]
            )
        if unwanted:
            self.broken(
                f"{len(unwanted)} mails went out that nobody was owed: {unwanted[:5]}",
                *unwanted[:3],
            )

    def owed(self) -> tuple[set[str], set[str]]:
        """Message-IDs that must have arrived, and those that may have."""
        owed: set[str] = set()
        allowed: set[str] = set()
        with db.reading() as session:
            people = {user.id: user for user in session.scalars(select(User))}
            lessons = session.scalars(
                select(Booking).where(Booking.confirmed_at.is_not(None))
            ).all()
            given_up = {
                mail_key(mail.kind, mail.subject_id, mail.recipient_id)
                for mail in session.scalars(
                    select(EmailMessage).where(EmailMessage.state == EmailState.CANCELLED)
                )
            }
            # Whom they are for changes with each notification that is read: only not doubled.
            allowed |= {
                mail_key(mail.kind, mail.subject_id, mail.recipient_id)
                for mail in session.scalars(
                    select(EmailMessage).where(
                        EmailMessage.kind.in_([EmailKind.DIGEST, EmailKind.WEEKLY_REPORT])
                    )
                )
                if people[mail.recipient_id].wants_digests
            }
            resets = session.scalars(select(PasswordReset)).all()
        for lesson in lessons:
            must, may = self._of(lesson)
            for reader_id in (lesson.student_id, lesson.instructor_id):
                for kinds, into in ((must, owed), (may, allowed)):
                    into |= {
                        mail_key(kind, lesson.id, reader_id)
                        for kind in kinds
                        if _wants(people[reader_id], kind)
                    }
        for reset in resets:
            key = mail_key(EmailKind.PASSWORD_RESET, reset.id, reset.user_id)
            (owed if reset.expires_at == reset.created_at + VALID_FOR else allowed).add(key)
        if self.replay.plan.faults:
            # What an outage kept until it was of no use any more was withdrawn.
            useless = {key for key in given_up if key.startswith(("reminder", "password"))}
            allowed |= owed & useless
            owed -= useless
        return owed, allowed

    def _of(self, lesson: Booking) -> tuple[set[EmailKind], set[EmailKind]]:
        assert lesson.confirmed_at is not None  # noqa: S101 - the statement asks for it
        must: set[EmailKind] = set()
        may: set[EmailKind] = set()
        cancelled = lesson.status is BookingStatus.CANCELLED
        if lesson.confirmed_at >= self.replay.deployment_start:
            (may if cancelled else must).add(EmailKind.BOOKING_CONFIRMATION)
        for kind, instant in (
            (EmailKind.BOOKING_CANCELLATION, lesson.cancelled_at),
            (EmailKind.NO_SHOW, lesson.no_show_at),
        ):
            if instant is not None and instant >= self.replay.deployment_start:
                must.add(kind)
        for kind in reminders.LEADS:
            opens, closes = (lesson.starts_at - each for each in reminders.window(kind))
            if lesson.confirmed_at > opens:
                continue
            until = min(closes, lesson.cancelled_at or closes)
            # A run reads the clock up to some seconds before it has succeeded.
            surely = any(opens + SLACK <= run < until - 2 * SLACK for run in self._reminded)
            perhaps = any(opens <= run < until + SLACK for run in self._reminded)
            if surely and not cancelled:
                must.add(kind)
            elif perhaps:
                may.add(kind)
        return must, may


def _wants(user: User, kind: EmailKind) -> bool:
    if kind in reminders.LEADS:
        return user.wants_reminders
    return user.wants_booking_mails


class EachDueInstantOnce(Invariant):
    name = "each due instant once"
    sentence = "Each due instant of the README's table has one run; none is run that is not due."

    def __init__(self, replay: Replay) -> None:
        super().__init__(replay)
        self.runs: dict[str, Counter[datetime]] = defaultdict(Counter)

    def see(self, now: datetime, event: str, fields: Mapping[str, Any]) -> None:
        if event != "beat":
            return
        entry, due = fields["entry"], datetime.fromisoformat(fields["due"])
        self.runs[entry][due] += 1
        if self.runs[entry][due] > 1:
            self.broken(f"{entry} ran twice for {due.isoformat()}", entry)

    def conclude(self) -> None:
        replay = self.replay
        for entry, when in README.items():
            due = set(due_instants(when, start=replay.start, end=replay.end, zone=replay.zone))
            ran = {each for each in self.runs[entry] if replay.start <= each < replay.end}
            if extra := sorted(ran - due):
                self.broken(f"{entry} ran at {extra[0].isoformat()}, when it was not due", entry)
            missing = sorted(due - ran)
            if missing and not self._excused(entry, missing):
                self.broken(
                    f"{entry} has no run for {len(missing)} of {len(due)} due instants, the first "
                    f"{missing[0].isoformat()}",
                    entry,
                )

    def _excused(self, entry: str, missing: list[datetime]) -> bool:
        """Whether a fault let a later run stand for the missed ones, or nobody needs them."""
        if entry == EACH or not any(fault.kind in BEAT_FAULTS for fault in self.replay.plan.faults):
            return False
        if entry == SKIPPED:
            return True
        return all(any(run > instant for run in self.runs[entry]) for instant in missing)


class UrgentFirst(Invariant):
    name = "urgent work first"
    sentence = "No worker takes a message while a more urgent one waits in a queue that it serves."

    def see(self, now: datetime, event: str, fields: Mapping[str, Any]) -> None:
        if event != "received" or fields["task"] == ABOVE_ALL:
            return
        taken = URGENCIES[fields["queue"]]
        above = [queue for queue, urgency in URGENCIES.items() if urgency > taken]
        if above and self.replay.deployment.broker.has_waiting(above):
            self.broken(
                f"{fields['worker']} took {fields['task']} from {fields['queue']} while something "
                f"waited in {', '.join(above)}",
                fields["id"],
            )


class NobodyDoubleBooked(Invariant):
    name = "nobody is double-booked"
    sentence = "No two lessons that are not cancelled overlap, for an instructor or a student."

    def conclude(self) -> None:
        with db.reading() as session:
            lessons = session.execute(
                select(
                    Booking.id,
                    Booking.instructor_id,
                    Booking.student_id,
                    Booking.starts_at,
                    Booking.ends_at,
                )
                .where(Booking.status != BookingStatus.CANCELLED)
                .order_by(Booking.starts_at, Booking.id)
            ).all()
        busy_until: dict[int, tuple[datetime, int]] = {}
        for lesson_id, instructor_id, student_id, starts_at, ends_at in lessons:
            for person in (instructor_id, student_id):
                until, other = busy_until.get(person, (starts_at, 0))
                if until > starts_at:
                    self.broken(f"lessons {other} and {lesson_id} overlap")
                busy_until[person] = (ends_at, lesson_id)


class MetricsRight(Invariant):
    name = "metrics equal a recount"
    sentence = "Each day's metrics are what a person would count in the tables."

    def conclude(self) -> None:
        zone = self.replay.zone
        with db.reading() as session:
            rows = {row.date: row for row in session.scalars(select(DailyMetrics))}
            lessons = session.scalars(select(Booking)).all()
        first = day_of(self.replay.start, zone) - timedelta(days=1)
        for offset in range(self.replay.plan.days):
            day = first + timedelta(days=offset)
            row = rows.get(day)
            if row is None:
                self.broken(f"the day {day} has not been counted", "analytics")
                return
            for column, counted in self._recount(lessons, day).items():
                if getattr(row, column) != counted:
                    self.broken(f"{column} of {day} is {getattr(row, column)}, counted {counted}")

    def _recount(self, lessons: Sequence[Booking], day: date) -> dict[str, int]:
        def on_day(instant: datetime | None) -> bool:
            return instant is not None and day_of(instant, self.replay.zone) == day

        completed = [lesson for lesson in lessons if on_day(lesson.completed_at)]
        return {
            "bookings_created": sum(on_day(lesson.created_at) for lesson in lessons),
            "bookings_completed": len(completed),
            "bookings_cancelled": sum(on_day(lesson.cancelled_at) for lesson in lessons),
            "no_shows": sum(on_day(lesson.no_show_at) for lesson in lessons),
            "revenue_cents": sum(lesson.price_cents for lesson in completed),
        }


class FreeSlotsRight(Invariant):
    name = "free slots equal a recomputation"
    sentence = "The cached free slots of each instructor are what the tables say."

    def conclude(self) -> None:
        slots = self.replay.slots
        cached = slots.read([each for (each,) in slots.instructor_ids()])
        with db.reading() as session:
            for instructor in self.replay.people.instructors:
                entry = cached.get(instructor.id)
                if entry is None:
                    self.broken(f"instructor {instructor.id} is not in the cache")
                    return
                (fresh,) = free_slots(session, [instructor.id], now=entry.computed_at).values()
                if {m: list(s) for m, s in entry.starts.items()} != {
                    m: list(s) for m, s in fresh.starts.items()
                }:
                    self.broken(
                        f"the cached slots of instructor {instructor.id} are not the tables'"
                    )


class EveryRowSettled(Invariant):
    name = "every outbox row settled"
    sentence = "When it is calm again no due work is pending, and none has died."

    def conclude(self) -> None:
        now = self.replay.deployment.now
        with db.reading() as session:
            pending = session.scalars(
                select(OutboxEntry).where(OutboxEntry.pending(), OutboxEntry.due_at <= now)
            ).all()
            dead: Sequence[OutboxEntry] = session.scalars(
                select(OutboxEntry).where(OutboxEntry.state == OutboxState.DEAD)
            ).all()
        # What was planned in this very second is on its way.
        late = [entry for entry in pending if entry.due_at < now - SLACK]
        if late:
            self.broken(f"{len(late)} rows are still pending, such as {late[0].task}", late[0].id)
        dead = [entry for entry in dead if not self._excused(entry)]
        if dead:
            self.broken(
                f"{len(dead)} rows are dead, such as {dead[0].task}: {dead[0].errors}", dead[0].id
            )

    def _excused(self, entry: OutboxEntry) -> bool:
        """Whether it is a mail that a server took again and again without saying so."""
        silent = any(fault.kind == "smtp-silent" for fault in self.replay.plan.faults)
        return silent and "nobody knows whether it was sent" in str(entry.errors)


class NoMessageLeft(Invariant):
    name = "no message lost or left"
    sentence = "When it is calm again nothing waits in a queue, and nobody holds a message."

    def conclude(self) -> None:
        broker = self.replay.deployment.broker
        since = broker.held_since()
        now = self.replay.deployment.now
        if since is not None and now.timestamp() - since > SLACK.total_seconds():
            self.broken("a message is held and never acknowledged")
        if broker.has_waiting(list(URGENCIES)):
            self.broken("messages wait and nobody takes them")


class WithinLimits(Invariant):
    name = "no task beyond its limits"
    sentence = "No task runs longer than its hard time limit."

    def __init__(self, replay: Replay) -> None:
        super().__init__(replay)
        self._started: dict[tuple[str, str], datetime] = {}

    def see(self, now: datetime, event: str, fields: Mapping[str, Any]) -> None:
        if event == "started":
            self._started[fields["id"], fields["worker"]] = now
        elif event in ENDS:
            began = self._started.pop((fields["id"], fields["worker"]), now)
            if now - began > HARD_LIMIT:
                self.broken(f"{fields['task']} ran for {now - began}", fields["id"])


class AcknowledgedAtTheEnd(Invariant):
    name = "acknowledged at the end"
    sentence = "A message stays with the broker until its task has ended."

    def __init__(self, replay: Replay) -> None:
        super().__init__(replay)
        self._running: dict[str, str] = {}

    def see(self, now: datetime, event: str, fields: Mapping[str, Any]) -> None:
        if event == "started":
            self._running[fields["id"]] = fields["worker"]
        elif event in ENDS:
            self._running.pop(fields["id"], None)
        elif event == "killed" and "worker" in fields:
            self._running = {
                each: worker for each, worker in self._running.items() if worker != fields["worker"]
            }
        elif event == "acked" and self._running.get(fields["id"]) == fields["worker"]:
            self.broken(f"a message was acknowledged while {fields['worker']} ran it", fields["id"])


class NothingResentWithoutALoss(Invariant):
    name = "nothing resent without a loss"
    sentence = "Nothing is sent again that is done, or that the broker has not lost."

    LOSSES = frozenset(
        {
            "beat-down",
            "database-locked",
            "kill-beat",
            "kill-worker",
            "redis-down",
            "redis-emptied",
            "second-beat",
            "workers-down",
            "wrong-clock",
        }
    )
    """After these a message may be gone: a process died, or Redis, between two steps."""

    def __init__(self, replay: Replay) -> None:
        super().__init__(replay)
        self._done: set[str] = set()

    def see(self, now: datetime, event: str, fields: Mapping[str, Any]) -> None:
        if event == "succeeded":
            self._done.add(fields["id"])
        elif event == "published" and fields["id"] in self._done:
            self.broken(f"{fields['task']} was sent again when it had succeeded", fields["id"])

    def conclude(self) -> None:
        if any(fault.kind in self.LOSSES for fault in self.replay.plan.faults):
            return
        with db.reading() as session:
            resent = session.scalars(select(OutboxEntry).where(OutboxEntry.resent > 0)).all()
        if resent:
            first = resent[0]
            self.broken(f"{len(resent)} rows were resent, such as {first.task}", first.id)


INVARIANTS: tuple[type[Invariant], ...] = (
    EachMailOnce,
    NoLateReminder,
    EveryMailArrives,
    EachDueInstantOnce,
    UrgentFirst,
    NobodyDoubleBooked,
    MetricsRight,
    FreeSlotsRight,
    EveryRowSettled,
    NoMessageLeft,
    WithinLimits,
    AcknowledgedAtTheEnd,
    NothingResentWithoutALoss,
)
