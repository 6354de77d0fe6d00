"""What the run must have come to: two independent sources, and what each lacks.

One is the mailbox: files that the mail server wrote. The other are the marketplace's
tables and its rules: what the bookings say that people are owed, whether or not anything
was ever planned, enqueued or sent for them. The outbox is the third, of which only one
thing is asked: is any work left undone.

The tasks are counted from the outbox's rows and not from Celery's events: an event dies
with the worker that would have sent it or the Redis that carried it, and a redelivered
message sends its events twice. A row changes once, together with the effect.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.models import (
    Booking,
    BookingStatus,
    EmailKind,
    EmailMessage,
    EmailState,
    OutboxEntry,
    OutboxState,
)
from scripts.demonstration.debts import Debts

COUNTED_STATUSES = (
    BookingStatus.CONFIRMED,
    BookingStatus.CANCELLED,
    BookingStatus.COMPLETED,
    BookingStatus.NO_SHOW,
)
ENDS_OF_A_TASK = {OutboxState.DONE: "succeeded", OutboxState.DEAD: "failed"}


@dataclass(frozen=True)
class Account:
    bookings: Mapping[str, int]
    """Lessons by what became of them."""
    expected_ids: frozenset[str]
    """Message-IDs that must be in the mailbox."""
    copies: Mapping[str, int]
    """Message-IDs that are, each with the number of its files."""
    takeovers: Mapping[str, int]
    """For each Message-ID, how often somebody's claim on the mail was taken over: so often
    nobody knew whether it had been sent."""
    tasks: Mapping[str, Mapping[str, int]]
    """For each module: succeeded, failed, retried."""
    outbox: Mapping[str, int]
    """``pending`` is due and not done; ``later`` waits for a future instant."""

    @property
    def expected(self) -> int:
        return len(self.expected_ids)

    @property
    def delivered(self) -> int:
        return len(self.copies)

    @property
    def doubled(self) -> int:
        """Accepted mails beyond the first of each Message-ID."""
        return sum(self.copies.values()) - len(self.copies)

    @property
    def uncertain(self) -> int:
        return sum(self.takeovers.values())

    @property
    def missing(self) -> frozenset[str]:
        """Expected mails that are not in the mailbox."""
        return self.expected_ids - self.copies.keys()

    @property
    def unexpected(self) -> frozenset[str]:
        """Mails that nobody should have got."""
        return frozenset(self.copies.keys() - self.expected_ids)

    @property
    def unexplained(self) -> frozenset[str]:
        """Mails that came more often than their takeovers explain."""
        return frozenset(
            message_id
            for message_id, copies in self.copies.items()
            if copies - 1 > self.takeovers.get(message_id, 0)
        )

    @property
    def lost(self) -> int:
        return self.outbox["pending"] + len(self.missing)


def draw_up(
    session: Session,
    message_ids: Sequence[str],
    debts: Debts,
    *,
    domain: str,
    reminded_at: datetime | None,
    reported: bool,
    now: datetime,
) -> Account:
    """Count the tables and the mailbox.

    ``message_ids`` is that of each file in the mailbox. ``domain`` ends ours.
    ``reminded_at``: see ``Debts.of_lessons``. ``reported`` says whether yesterday's digests
    and reports have been asked for.
    """
    rows = [
        (message_id(row.kind, row.subject_id, row.recipient_id, domain=domain), row)
        for row in session.scalars(select(EmailMessage))
    ]
    copies = Counter(message_ids)
    owed = debts.of_lessons(reminded_at=reminded_at, now=now) | debts.of_resets()
    if reported:
        owed |= debts.of_reports()
    expected = {message_id(*debt, domain=domain) for debt in owed}
    for identity, row in rows:
        # What could come or not (a confirmation just before the cancellation), and was
        # planned and not withdrawn. Where it was withdrawn after its sender had died, the
        # table itself does not know whether it had been sent: only the mailbox does.
        came = row.state is not EmailState.CANCELLED or (row.uncertain and identity in copies)
        if came and debts.allow(row):
            expected.add(identity)
    return Account(
        bookings=bookings(session),
        expected_ids=frozenset(expected),
        copies=copies,
        takeovers={identity: row.uncertain for identity, row in rows if row.uncertain},
        tasks=tasks(session),
        outbox=outbox(session, now=now),
    )


def message_id(kind: EmailKind, subject_id: int, reader_id: int, *, domain: str) -> str:
    """The Message-ID of a mail.

    Written down a second time on purpose: with the mailer's own function, two mails that it
    gave one id by mistake would be one here as well.
    """
    return f"<{kind}.{subject_id}.{reader_id}@{domain}>"


def bookings(session: Session) -> dict[str, int]:
    """Lessons by what became of them."""
    rows = session.execute(
        select(Booking.status, func.count().label("number")).group_by(Booking.status)
    )
    counts = {row.status: row.number for row in rows}
    return {status.value: counts.get(status, 0) for status in COUNTED_STATUSES}


def outbox(session: Session, *, now: datetime) -> dict[str, int]:
    """Entries by state; ``pending`` is due, ``later`` is not yet."""
    later = (OutboxEntry.state == OutboxState.PENDING) & (OutboxEntry.due_at > now)
    rows = session.execute(
        select(OutboxEntry.state, later, func.count()).group_by(OutboxEntry.state, later)
    )
    counts = {(state, bool(waits)): number for state, waits, number in rows}
    return {
        "done": counts.get((OutboxState.DONE, False), 0),
        "pending": counts.get((OutboxState.PENDING, False), 0),
        "later": counts.get((OutboxState.PENDING, True), 0),
        "dead": counts.get((OutboxState.DEAD, False), 0),
    }


def tasks(session: Session) -> dict[str, dict[str, int]]:
    """Runs of each module's tasks by their end."""
    counted: dict[str, dict[str, int]] = {}
    rows = session.execute(
        select(OutboxEntry.task, OutboxEntry.state, func.count(), func.sum(OutboxEntry.tries))
        .group_by(OutboxEntry.task, OutboxEntry.state)
        .order_by(OutboxEntry.task)
    )
    for name, state, number, tries in rows:
        module = name.rpartition(".")[0].rpartition(".")[2]
        figures = counted.setdefault(module, {"succeeded": 0, "failed": 0, "retried": 0})
        figures["retried"] += tries
        if state in ENDS_OF_A_TASK:
            figures[ENDS_OF_A_TASK[state]] += number
    return counted
