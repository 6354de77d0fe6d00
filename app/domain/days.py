"""Days as tasks get them, and as the subject of a mail."""

from datetime import date, timedelta

from app.domain.errors import PermanentError

DAYS_OF_A_WEEK = 7
_DAY = timedelta(days=1)


class NotADayError(PermanentError, ValueError):
    """A task was given something that is not the day it works on; the message says both."""


def parse(text: str) -> date:
    """The day that ``text`` names in ISO 8601. Raises ``NotADayError``."""
    try:
        return date.fromisoformat(text)
    except (TypeError, ValueError) as error:
        raise NotADayError(f"{text!r} is no day: pass a date such as 2026-11-01") from error


def parse_monday(text: str) -> date:
    """As ``parse``, for the day on which a week begins."""
    day = parse(text)
    if day.weekday() != 0:
        monday = day - day.weekday() * _DAY
        raise NotADayError(
            f"{text} is a {day:%A}: pass the Monday on which the week begins, such as {monday}"
        )
    return day


def number_of(day: date) -> int:
    """The day as the subject of a mail: 1 November 2026 is 20261101."""
    return day.year * 10_000 + day.month * 100 + day.day


def numbered(number: int) -> date:
    """The day that ``number_of`` gave this number. Raises ``ValueError`` for any other number."""
    return date(number // 10_000, number // 100 % 100, number % 100)
