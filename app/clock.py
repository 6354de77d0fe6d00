"""The only place that asks for the time."""

from datetime import UTC, datetime


def utcnow() -> datetime:
    """The present instant, aware, in UTC."""
    return datetime.now(UTC)
