"""The metrics of each local day, and the mails that tell of them."""

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy.orm import Session

from app import outbox
from app.domain import days
from app.domain.calendar import DAY, day_of, first_shown
from app.domain.days import WrongDayError
from app.services.day_metrics import compute_day
from app.services.digests import SEND_DIGESTS
from app.services.weekly_reports import SEND_WEEKLY_REPORTS

GENERATE_DAILY = "app.tasks.analytics.generate_daily"

MAILED_AT = time(8)
"""On the day after, in the marketplace's zone: nobody is woken by a report."""
DIGESTS_FOR = timedelta(days=2)
"""How long after that digests of a day are still mailed: time enough for an outage, but a
backfill tells nobody what is long past."""
REPORTS_FOR = timedelta(days=6)
"""As ``DIGESTS_FOR``, until the next week's. Both are shorter than an outbox entry is kept,
whose key keeps the mails of a day from being planned twice."""
FIRST_DAY = date(1970, 1, 1)
MOST_DAYS = 366
"""Of one backfill: a leap year."""
SUNDAY = 6


@dataclass(frozen=True)
class DaySummary:
    date: str
    services: int
    """Rows written, as for ``instructors``."""
    instructors: int


@dataclass(frozen=True)
class BackfillSummary:
    first: str
    last: str
    days: int


def generate_daily(
    session: Session, day: str | None, *, due_at: datetime, zone: ZoneInfo, now: datetime
) -> DaySummary:
    """Count a local day that is over, and plan the mails about it.

    Without ``day`` (ISO 8601) it is the one before ``due_at``. Raises ``WrongDayError``.
    """
    chosen = day_of(due_at, zone) - DAY if day is None else _counted_day(day)
    _check_over(chosen, zone=zone, now=now)
    rows = compute_day(session, chosen, zone=zone, now=now)
    _plan_mails(session, chosen, zone=zone, now=now)
    return DaySummary(chosen.isoformat(), **rows)


def plan_backfill(
    session: Session, first: str, last: str, *, zone: ZoneInfo, now: datetime
) -> BackfillSummary:
    """Enqueue the count of each day from ``first`` to ``last``, both included.

    Raises ``WrongDayError`` before anything is enqueued.
    """
    start, end = _counted_day(first), _counted_day(last)
    if end < start:
        raise WrongDayError(f"the last day, {end}, is before the first, {start}")
    count = (end - start) // DAY + 1
    if count > MOST_DAYS:
        raise WrongDayError(f"{count} days are more than {MOST_DAYS}: ask for a part of them")
    _check_over(end, zone=zone, now=now)
    for number in range(count):
        outbox.enqueue(session, GENERATE_DAILY, (start + number * DAY).isoformat())
    return BackfillSummary(start.isoformat(), end.isoformat(), count)


def _counted_day(written: str) -> date:
    day = days.parse(written)
    if day < FIRST_DAY:
        raise WrongDayError(f"{day} is before {FIRST_DAY}, the first day that is counted")
    return day


def _check_over(day: date, *, zone: ZoneInfo, now: datetime) -> None:
    today = day_of(now, zone)
    if day >= today:
        raise WrongDayError(
            f"{day} is not over in {zone}: the last day that can be counted is {today - DAY}"
        )


def _plan_mails(session: Session, day: date, *, zone: ZoneInfo, now: datetime) -> None:
    next_day = day + DAY
    at = first_shown(datetime.combine(next_day, MAILED_AT), zone)
    if now <= at + DIGESTS_FOR:
        outbox.enqueue(session, SEND_DIGESTS, day.isoformat(), at=at, key=f"digest:{day}")
    if day.weekday() == SUNDAY and now <= at + REPORTS_FOR:
        monday = day - SUNDAY * DAY
        outbox.enqueue(
            session,
            SEND_WEEKLY_REPORTS,
            monday.isoformat(),
            at=at,
            key=f"weekly-report:{monday}",
        )
