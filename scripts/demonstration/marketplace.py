"""The marketplace's own process: its settings, its database, and what it puts into the outbox."""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date, timedelta
from email.utils import parseaddr
from pathlib import Path
from zoneinfo import ZoneInfo

from sqlalchemy import exists, select

from app import clock, db, outbox, schema
from app.adapters.slot_cache import CachedSlots, slot_cache_from
from app.models import EmailMessage, EmailState, OutboxEntry, Service
from app.services.digests import SEND_DIGESTS
from app.services.weekly_reports import SEND_WEEKLY_REPORTS
from app.settings import load_settings
from scripts.demonstration.debts import monday_of

SEND_REMINDERS = "app.tasks.bookings.send_due_reminders"
UPDATE_AVAILABILITY = "app.tasks.cache.update_availability"
GENERATE_DAILY = "app.tasks.analytics.generate_daily"
SOON = timedelta(minutes=1)


@contextmanager
def opened(environment: Mapping[str, str], *, log: Path) -> Iterator[None]:
    """Make this process one that commits bookings and publishes after the commit.

    It becomes so by its environment, as a web server's process does, and stays so. What the
    app logs here goes to ``log``.
    """
    os.environ.clear()
    os.environ.update(environment)
    load_settings.cache_clear()
    log.parent.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        filename=log, level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s"
    )
    import app.tasks  # attaches the publisher; reads the settings, so not before

    app.tasks.celery_app.loader.import_default_modules()
    schema.prepare(db.engine())
    try:
        yield
    finally:
        outbox.attach(None)
        made = db.use(None)
        if made is not None:
            made.dispose()


PEOPLES_MODULES = frozenset({"email", "notifications"})
"""Task modules whose work comes from what people do, not from beat."""


def modules() -> tuple[str, ...]:
    """The task modules that a demo runs: one whose tasks nobody plans in it is not among them."""
    from app.tasks.celery_config import BEAT_ENTRIES

    of_beat = {entry.task.split(".")[2] for entry in BEAT_ENTRIES}
    return tuple(sorted(PEOPLES_MODULES | of_beat))


def enqueue_schedule_once(yesterday: date) -> list[str]:
    """Enqueue a run of each task in beat's schedule; their names.

    Nobody waits for 02:00 in front of a demo. The metrics are those of ``yesterday``, also
    where the show begins a moment before midnight.
    """
    from app.tasks import celery_app

    schedule = celery_app.conf.beat_schedule.values()
    entries = {entry["task"]: entry.get("args", ()) for entry in schedule}
    entries[GENERATE_DAILY] = (yesterday.isoformat(),)
    with db.transaction() as session:
        for task, args in sorted(entries.items()):
            outbox.enqueue(session, task, *args)
    return sorted(entries)


def enqueue_reminders() -> None:
    """Enqueue what the schedule does every half hour."""
    with db.transaction() as session:
        outbox.enqueue(session, SEND_REMINDERS)


def enqueue_slots() -> None:
    """Enqueue what the schedule does every five minutes."""
    with db.transaction() as session:
        outbox.enqueue(session, UPDATE_AVAILABILITY)


def enqueue_reports(yesterday: date) -> None:
    """Enqueue yesterday's digests, and the reports of its week so far."""
    with db.transaction() as session:
        outbox.enqueue(session, SEND_DIGESTS, yesterday.isoformat())
        outbox.enqueue(session, SEND_WEEKLY_REPORTS, monday_of(yesterday).isoformat())


def cached_slots() -> dict[int, CachedSlots]:
    """What Redis holds of every instructor's free slots."""
    with db.reading() as session:
        instructor_ids = session.scalars(select(Service.instructor_id)).all()
    with slot_cache_from(load_settings()) as cache:
        return cache.read(instructor_ids)


def zone() -> ZoneInfo:
    """The time zone of the schedule."""
    return ZoneInfo(load_settings().celery_timezone)


def is_drained() -> bool:
    """Whether nothing in the outbox is due, or will be within ``SOON`` as a retry is."""
    with db.reading() as session:
        waits = select(
            exists().where(OutboxEntry.pending(), OutboxEntry.due_at <= clock.utcnow() + SOON)
        )
        return not session.scalar(waits)


def is_sending() -> bool:
    """Whether a worker has a mail in hand."""
    with db.reading() as session:
        in_hand = select(exists().where(EmailMessage.state == EmailState.SENDING))
        return session.scalar(in_hand) or False


def mail_domain() -> str:
    """What ends the Message-IDs of this deployment."""
    return parseaddr(load_settings().mail_from)[1].rpartition("@")[2]
