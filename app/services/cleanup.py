"""Deleting what is too old to be of use, in batches that hold nobody up.

Results of tasks are not among it: they live in Redis, which forgets them itself
(``result_expires``).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement
from sqlalchemy.orm import InstrumentedAttribute, Session

from app import db
from app.models import (
    Broadcast,
    EmailMessage,
    EmailState,
    Notification,
    PasswordReset,
    UserSession,
)
from app.outbox import dead_letters, retention, schedule
from app.settings import Settings

BATCH = 1000
"""Rows in one transaction: some milliseconds, for which SQLite's other writers wait."""

DEFINITIONS_KEPT = timedelta(days=90)
"""After its last sign of life: longer than a roll-back or a forgotten beat takes to come back."""

WAITING = (EmailState.QUEUED, EmailState.SENDING)

Deletion = Callable[[Session, int], int]
"""Deletes up to so many rows, and returns how many."""


@dataclass(frozen=True)
class Swept:
    deleted: dict[str, int]
    """Rows, by what they were."""
    more: bool
    """Whether the time was up before all of them."""


def sweep(
    deletions: Mapping[str, Deletion],
    *,
    budget: timedelta,
    clock: Callable[[], datetime],
    pause: Callable[[], None],
    batch: int = BATCH,
) -> Swept:
    """Delete batch after batch, each in a transaction of its own, until nothing is left.

    ``pause`` is called between two batches, to let others write. After ``budget`` no batch
    is begun, but one there is in each call: who calls again until there is no ``more``
    comes to an end. Killed, it leaves whole batches.
    """
    ends = clock() + budget
    deleted = dict.fromkeys(deletions, 0)
    for name, delete in deletions.items():
        while True:
            with db.transaction() as session:
                count = delete(session, batch)
            deleted[name] += count
            if count < batch:
                break
            if clock() >= ends:
                return Swept(deleted, more=True)
            pause()
    db.discard_deleted()
    return Swept(deleted, more=False)


def expired_sessions(*, now: datetime) -> dict[str, Deletion]:
    """Sessions that nobody can use any more."""
    return {
        "sessions": _rows(UserSession.id, UserSession.expires_at, UserSession.expires_at <= now)
    }


def old_notifications(settings: Settings, *, now: datetime) -> dict[str, Deletion]:
    """Notifications that were read long ago; unread ones stay."""
    read_before = now - timedelta(days=settings.notification_retention_days)
    return {
        "notifications": _rows(
            Notification.id, Notification.read_at, Notification.read_at < read_before
        )
    }


def old_rows(settings: Settings, *, now: datetime) -> dict[str, Deletion]:
    """Work, mails, password resets, broadcasts and definitions of beats that are no longer used."""

    def ago(days: int) -> datetime:
        return now - timedelta(days=days)

    done_before = ago(settings.outbox_retention_days)
    died_before = ago(settings.dead_letter_retention_days)
    # An operator who repeats a dead letter must find its mail.
    failed_before = min(died_before, ago(settings.mail_retention_days))
    return {
        "outbox": lambda session, limit: retention.purge(session, before=done_before, limit=limit),
        "dead_letters": lambda session, limit: dead_letters.purge(
            session, before=died_before, limit=limit
        ),
        "mails": _rows(
            EmailMessage.id,
            EmailMessage.created_at,
            EmailMessage.created_at < ago(settings.mail_retention_days),
            EmailMessage.state.not_in([*WAITING, EmailState.FAILED]),
        ),
        "failed_mails": _rows(
            EmailMessage.id,
            EmailMessage.failed_at,
            EmailMessage.failed_at < failed_before,
            EmailMessage.state.not_in(WAITING),
        ),
        "password_resets": _rows(
            PasswordReset.id,
            PasswordReset.expires_at,
            PasswordReset.expires_at < ago(settings.password_reset_retention_days),
        ),
        "broadcasts": _rows(
            Broadcast.id,
            Broadcast.finished_at,
            Broadcast.finished_at < ago(settings.broadcast_retention_days),
        ),
        "beat_definitions": lambda session, limit: schedule.delete_definitions(
            session, before=now - DEFINITIONS_KEPT, limit=limit
        ),
    }


def _rows(
    key: InstrumentedAttribute[Any],
    oldest: InstrumentedAttribute[Any],
    *conditions: ColumnElement[bool],
) -> Deletion:
    return lambda session, limit: db.delete_batch(
        session, key, *conditions, oldest=oldest, limit=limit
    )
