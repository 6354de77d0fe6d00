"""Mails: which are owed, each once, and none too late."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from app import db
from app.domain import reminders
from app.models import (
    Booking,
    BookingStatus,
    EmailKind,
    EmailMessage,
    EmailState,
    PasswordReset,
    User,
)
from app.services.password_resets import VALID_FOR
from simulations.marketplace.invariants.invariant import SLACK, Invariant
from simulations.marketplace.invariants.morning import morning_mails

if TYPE_CHECKING:
    from simulations.marketplace.replay import Replay


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
        "Every confirmation, cancellation, no-show notice, reminder, password reset, digest and "
        "weekly report that the tables owe has arrived, and no other."
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
            morning = morning_mails(session, zone=self.replay.zone, now=self.replay.deployment.now)
            owed |= {mail_key(*mail) for mail in morning.owed}
            allowed |= {mail_key(*mail) for mail in morning.allowed}
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
