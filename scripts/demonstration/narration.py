"""Tells what the tables and the mailbox show: nobody reports to the narrator."""

import re
from collections import Counter
from collections.abc import Callable, Iterable

from sqlalchemy import func, select

from app import db
from app.domain.email_kinds import LESSON_MAILS
from app.domain.reminders import LEADS
from app.models import EmailKind, EmailMessage, OutboxEntry, OutboxState
from scripts.demonstration.population import Say
from scripts.demonstration.status import Status, read
from scripts.live.mailbox import Mailbox

MAILS_EVERY = 0.5  # seconds; both sides of a lesson mostly get theirs in one look

SPOKEN: dict[str, str] = {
    EmailKind.BOOKING_CONFIRMATION: "confirmation",
    EmailKind.BOOKING_CANCELLATION: "cancellation",
    EmailKind.REMINDER_24H: "24 h reminder",
    EmailKind.REMINDER_1H: "1 h reminder",
    EmailKind.NO_SHOW: "no-show notice",
    EmailKind.PASSWORD_RESET: "password reset",
    EmailKind.DIGEST: "digest",
    EmailKind.WEEKLY_REPORT: "weekly report",
}


class Narrator:
    """Looks, and says what is new since the last look."""

    def __init__(
        self,
        mailbox: Mailbox,
        *,
        students: Iterable[int],
        say: Say,
        status: Callable[[Status], None],
        status_every: float,
    ) -> None:
        self._mailbox = mailbox
        self._students = frozenset(students)
        self._say = say
        self._status = status
        self._status_every = status_every
        self._mails_seen = 0
        self._ids_seen: set[str] = set()
        self._last_row = 0
        self._sums = (0, 0, 0, 0)
        self._next_mails = 0.0
        self._next_status = status_every

    def look(self, elapsed: float) -> None:
        """Look, ``elapsed`` seconds into the show."""
        self._look_at_reminders()
        self._look_at_trouble()
        if elapsed >= self._next_mails:
            self._next_mails = elapsed + MAILS_EVERY
            self.tell_mails()
        if elapsed >= self._next_status:
            self._next_status = elapsed + self._status_every
            self._status(read(mails=self._mails_seen))

    def tell_mails(self) -> None:
        """Tell of every mail that has arrived by now."""
        if len(self._mailbox) == self._mails_seen:
            return
        arrived = self._mailbox.message_ids(skip=self._mails_seen)
        self._mails_seen += len(arrived)
        readers: dict[tuple[str, int], list[str]] = {}
        for message_id in arrived:
            found = re.match(r"<(\w+)\.(\d+)\.(\d+)@", message_id)
            if found is None:
                self._say("mail", f"of an unknown kind: {message_id}")
                continue
            kind, lesson, reader = found[1], int(found[2]), int(found[3])
            if message_id in self._ids_seen:
                spoken = SPOKEN.get(kind, kind)
                self._say("doubled", f"{spoken} of lesson {lesson}: nobody knew that it was sent")
                continue
            side = "student" if reader in self._students else "instructor"
            readers.setdefault((kind, lesson), []).append(side)
        self._ids_seen.update(arrived)
        lessons: dict[tuple[str, str], list[int]] = {}
        others: Counter[str] = Counter()
        for (kind, lesson), sides in readers.items():
            if kind not in LESSON_MAILS:
                others[kind] += len(sides)
                continue
            whom = "both sides" if len(sides) == 2 else f"the {sides[0]}"
            lessons.setdefault((kind, whom), []).append(lesson)
        for (kind, whom), numbers in lessons.items():
            spoken = SPOKEN.get(kind, kind)
            self._say("mail", f"{spoken} of {_lessons(numbers)} has reached {whom}")
        for kind, number in others.items():
            self._say("mail", f"{SPOKEN.get(kind, kind)}: {number} have reached their readers")

    def _look_at_reminders(self) -> None:
        with db.reading() as session:
            rows = session.execute(
                select(EmailMessage.id, EmailMessage.kind, EmailMessage.subject_id)
                .where(EmailMessage.id > self._last_row)
                .order_by(EmailMessage.id)
            ).all()
        planned: dict[EmailKind, set[int]] = {}
        for row_id, kind, lesson_id in rows:
            self._last_row = row_id
            if kind in LEADS:
                planned.setdefault(kind, set()).add(lesson_id)
        for kind, lessons in planned.items():
            self._say("reminder", f"{SPOKEN[kind]} planned for both sides of {_lessons(lessons)}")

    def _look_at_trouble(self) -> None:
        with db.reading() as session:
            retried, resent, dead = session.execute(
                select(
                    func.coalesce(func.sum(OutboxEntry.tries), 0),
                    func.coalesce(func.sum(OutboxEntry.resent), 0),
                    func.count().filter(OutboxEntry.state == OutboxState.DEAD),
                )
            ).one()
            uncertain = session.scalar(select(func.sum(EmailMessage.uncertain))) or 0
        sums = (retried, resent, dead, uncertain)
        words = (
            ("retry", "put back into the outbox for another try"),
            ("resent", "gone from Redis and published again"),
            ("dead", "dead: python -m app.admin deadletters list"),
            ("uncertain", "taken over from a dead worker, perhaps after the server had it"),
        )
        for before, after, (what, text) in zip(self._sums, sums, words, strict=True):
            if after > before:
                self._say(what, f"{after - before} {text}")
        self._sums = sums


def _lessons(numbers: Iterable[int]) -> str:
    """Such as ``lessons 3, 4``."""
    sorted_numbers = sorted(numbers)
    noun = "lesson" if len(sorted_numbers) == 1 else "lessons"
    return f"{noun} {', '.join(map(str, sorted_numbers))}"
