"""How far the marketplace has come, in figures."""

from collections.abc import Mapping
from dataclasses import dataclass

from app import clock, db
from scripts.demonstration import accounting


@dataclass(frozen=True)
class Status:
    bookings: Mapping[str, int]
    """Lessons by what became of them."""
    tasks: Mapping[str, Mapping[str, int]]
    """For each module: succeeded, failed, retried."""
    outbox: Mapping[str, int]
    mails: int
    """Files in the mailbox."""


def read(*, mails: int) -> Status:
    """What the tables say now."""
    with db.reading() as session:
        return Status(
            bookings=accounting.bookings(session),
            tasks=accounting.tasks(session),
            outbox=accounting.outbox(session, now=clock.utcnow()),
            mails=mails,
        )
