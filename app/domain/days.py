"""Days as tasks get them, and as the subject of a mail."""

import re
from datetime import date, timedelta

from app.domain.errors import PermanentError

DAYS_OF_A_WEEK = 7
_DAY = timedelta(days=1)


class WrongDayError(PermanentError, ValueError):
    """No day, or none that the work can be about; the message says why, in one line."""


def parse(text: str) -> date:
    """The day that ``text`` (2026-11-01) names. Raises ``WrongDayError``.

    ISO 8601 has more ways to write one, of which Python's versions read different ones.
    """
    try:
        if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            raise ValueError
        return date.fromisoformat(text)
    except (TypeError, ValueError):
        raise WrongDayError(f"{text!r:.40} is no day: pass a date such as 2026-11-01") from None


def parse_monday(text: str) -> date:
    """As ``parse``, for the day on which a week begins."""
    day = parse(text)
    if day.weekday() != 0:
        monday = day - day.weekday() * _DAY
        raise WrongDayError(
            f"{text} is a {day:%A}: pass the Monday on which the week begins, such as {monday}"
        )
    return day


def number_of(day: date) -> int:
    """The day as the subject of a mail: 1 November 2026 is 20261101."""
    return day.year * 10_000 + day.month * 100 + day.day


def numbered(number: int) -> date:
    """The day that ``number_of`` gave this number. Raises ``ValueError`` for any other number."""
    return date(number // 10_000, number // 100 % 100, number % 100)
