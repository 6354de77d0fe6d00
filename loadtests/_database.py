"""The deployment's database, where ``DATABASE_URL`` names one."""

from __future__ import annotations

import os
import time
from pathlib import Path

from sqlalchemy import delete, make_url, select
from sqlalchemy.exc import SQLAlchemyError

from app import db, outbox, schema
from app.models import OutboxEntry, OutboxState
from app.settings import load_settings
from loadtests._errors import LoadTestError
from loadtests._work import HEALTH_CHECK

VARIABLE = "DATABASE_URL"
VERIFIED_SECONDS = 15.0
POLL_SECONDS = 0.1
MOST_URGENT = 9


def is_named() -> bool:
    """Whether there is one: then a load test goes through the services."""
    return bool(os.environ.get(VARIABLE) or os.environ.get(f"{VARIABLE}_FILE"))


def shown() -> str:
    """Its URL without the password."""
    return db.shown(make_url(load_settings().database_url.get_secret_value()))


def check() -> None:
    """Make sure that it is there and of this version. Raises ``LoadTestError``."""
    try:
        # A file that is not there would be made.
        file = db.engine().url.database if db.engine().dialect.name == "sqlite" else None
        if file is not None and not Path(file).is_file():
            raise LoadTestError(f"{VARIABLE}: there is no file {file}")
        if schema.current_of(db.engine()) != schema.newest():
            raise LoadTestError(
                f"{VARIABLE}: {shown()} has not this version's schema: is it the deployment's?"
            )
    except (schema.DatabaseNotReadyError, SQLAlchemyError) as error:
        raise LoadTestError(f"{VARIABLE}: {error}") from error


def check_workers() -> None:
    """Make sure that the workers of the attached broker work on it.

    One health check is planned here, and must be done there. Raises ``LoadTestError``.
    """
    (health_check,) = HEALTH_CHECK
    entry_id = None
    try:
        # All within: a Ctrl-C may come between the commit and the next line.
        try:
            with db.transaction() as session:
                entry_id = outbox.enqueue(session, health_check.task, urgency=MOST_URGENT)
        except SQLAlchemyError as error:
            raise LoadTestError(f"{VARIABLE}: {error}") from error
        done = _is_done_in_time(entry_id)
    finally:
        if entry_id is not None:
            with db.transaction() as session:
                session.execute(delete(OutboxEntry).where(OutboxEntry.id == entry_id))
    if not done:
        raise LoadTestError(
            f"{VARIABLE}: no worker of --host did within {VERIFIED_SECONDS:g} s what was planned "
            f"in {shown()}: is it another deployment's database? Unset it to load the broker alone"
        )


def _is_done_in_time(entry_id: str) -> bool:
    deadline = time.monotonic() + VERIFIED_SECONDS
    while time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        with db.reading() as session:
            state = session.scalar(select(OutboxEntry.state).where(OutboxEntry.id == entry_id))
        if state is OutboxState.DONE:
            return True
    return False
