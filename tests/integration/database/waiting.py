"""Waiting until the server says that somebody waits for a lock."""

from time import monotonic, sleep

from sqlalchemy import text

from app import db

POLL = 0.02  # seconds
TIMEOUT = 10.0  # seconds

WAITING = text(
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


def wait_until_somebody_waits() -> None:
    """Return when a connection to the database in force waits for another one's lock."""
    deadline = monotonic() + TIMEOUT
    while True:
        with db.reading() as session:
            if session.scalar(WAITING):
                return
        if monotonic() > deadline:
            raise TimeoutError(f"nobody waited for a lock in {TIMEOUT:g} s")
        sleep(POLL)
