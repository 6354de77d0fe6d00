"""Metrics: what a person would count."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import InstrumentedAttribute

from app import db
from app.domain.calendar import day_of
from app.models import (
    Booking,
    BookingStatus,
    DailyMetrics,
    EmailMessage,
    InstructorMetrics,
    OutboxEntry,
    OutboxState,
    ServiceMetrics,
)
from simulations.marketplace.invariants.invariant import Invariant

DAY = timedelta(days=1)
KEPT_FOR = 6 * DAY
"""So long nobody deletes the mails and outbox rows that days were counted from."""
TOOK_PLACE = {BookingStatus.CONFIRMED, BookingStatus.COMPLETED, BookingStatus.NO_SHOW}

Whose = tuple[str, int]
"""Whose figures: of all, of a service, of an instructor; with its id."""
ALL: Whose = ("all", 0)


@dataclass
class Tally:
    """What happened on one day to all lessons, to a service's or to an instructor's."""

    events: Counter[str] = field(default_factory=Counter)
    students: set[int] = field(default_factory=set)
    instructors: set[int] = field(default_factory=set)

    def figures(self) -> dict[str, int]:
        """By column."""
        columns = (
            *("bookings_created", "bookings_completed", "bookings_cancelled", "no_shows"),
            "revenue_cents",
        )
        return {
            **{column: self.events[column] for column in columns},
            "active_students": len(self.students),
        }


class MetricsRight(Invariant):
    name = "metrics equal a recount"
    sentence = (
        "Each day's metrics, in all and of each service and instructor, are what a person would "
        "count in the tables."
    )

    def conclude(self) -> None:
        zone = self.replay.zone
        with db.reading() as session:
            days = {row.date: row for row in session.scalars(select(DailyMetrics))}
            parts: dict[tuple[date, Whose], Any] = {
                (part.date, ("service", part.service_id)): part
                for part in session.scalars(select(ServiceMetrics))
            }
            parts |= {
                (part.date, ("instructor", part.instructor_id)): part
                for part in session.scalars(select(InstructorMetrics))
            }
            lessons = session.scalars(select(Booking)).all()
            kept = {column: _by_day(session, *what, zone) for column, what in _KEPT.items()}
        first = day_of(self.replay.start, zone) - DAY
        for offset in range(self.replay.plan.days):
            if first + offset * DAY not in days:
                self.broken(f"the day {first + offset * DAY} has not been counted", "analytics")
                return
        tallies = recount(lessons, zone)
        for day, row in days.items():
            tally = tallies.pop((day, ALL), Tally())
            self._compare(f"{day}", row, tally.figures())
            self._compare(f"{day}", row, {"active_instructors": len(tally.instructors)})
            self._compare_kept(day, row, {name: each[day] for name, each in kept.items()})
        for (day, whose), tally in tallies.items():
            if day not in days:
                continue
            part = parts.pop((day, whose), None)
            what = f"{day} for {whose[0]} {whose[1]}"
            if part is None:
                self.broken(f"{what} has no metrics", "analytics")
            else:
                self._compare(what, part, tally.figures())
        if parts:
            day, whose = next(iter(parts))
            self.broken(f"{day} has metrics for {whose[0]} {whose[1]}, to whom nothing happened")

    def _compare(self, what: str, row: Any, counted: dict[str, int]) -> None:
        for column, number in counted.items():
            if getattr(row, column) != number:
                self.broken(f"{column} of {what} is {getattr(row, column)}, counted {number}")

    def _compare_kept(self, day: date, row: Any, counted: dict[str, int]) -> None:
        if day_of(self.replay.deployment.now - KEPT_FOR, self.replay.zone) <= day:
            self._compare(f"{day}", row, counted)


def recount(lessons: Sequence[Booking], zone: ZoneInfo) -> dict[tuple[date, Whose], Tally]:
    """What happened on each local day to whom; nothing where there is no entry."""
    tallies: dict[tuple[date, Whose], Tally] = defaultdict(Tally)
    for lesson in lessons:
        for column, instant in _events_of(lesson):
            for tally in _tallies_of(tallies, lesson, day_of(instant, zone)):
                tally.events[column] += 1
                if column == "bookings_completed":
                    tally.events["revenue_cents"] += lesson.price_cents
        if lesson.status in TOOK_PLACE:
            for tally in _tallies_of(tallies, lesson, day_of(lesson.starts_at, zone)):
                tally.students.add(lesson.student_id)
                tally.instructors.add(lesson.instructor_id)
    return tallies


def _events_of(lesson: Booking) -> Iterator[tuple[str, datetime]]:
    for column, instant in (
        ("bookings_created", lesson.created_at),
        ("bookings_completed", lesson.completed_at),
        ("bookings_cancelled", lesson.cancelled_at),
        ("no_shows", lesson.no_show_at),
    ):
        if instant is not None:
            yield column, instant


def _tallies_of(
    tallies: dict[tuple[date, Whose], Tally], lesson: Booking, day: date
) -> Iterator[Tally]:
    yield tallies[day, ALL]
    yield tallies[day, ("service", lesson.service_id)]
    yield tallies[day, ("instructor", lesson.instructor_id)]


_KEPT: dict[str, tuple[InstrumentedAttribute[datetime | None], tuple[ColumnElement[bool], ...]]] = {
    "mails_sent": (EmailMessage.sent_at, ()),
    "mails_failed": (EmailMessage.failed_at, ()),
    "tasks_done": (OutboxEntry.finished_at, (OutboxEntry.state == OutboxState.DONE,)),
    "tasks_dead": (OutboxEntry.finished_at, (OutboxEntry.state == OutboxState.DEAD,)),
}


def _by_day(
    session: Any,
    instant: InstrumentedAttribute[datetime | None],
    conditions: tuple[ColumnElement[bool], ...],
    zone: ZoneInfo,
) -> Counter[date]:
    happened = session.scalars(select(instant).where(instant.is_not(None), *conditions))
    return Counter(day_of(each, zone) for each in happened)
