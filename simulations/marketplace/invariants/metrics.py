"""Metrics: what a person would count."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta

from sqlalchemy import select

from app import db
from app.domain.calendar import day_of
from app.models import Booking, DailyMetrics
from simulations.marketplace.invariants.invariant import Invariant


class MetricsRight(Invariant):
    name = "metrics equal a recount"
    sentence = "Each day's metrics are what a person would count in the tables."

    def conclude(self) -> None:
        zone = self.replay.zone
        with db.reading() as session:
            rows = {row.date: row for row in session.scalars(select(DailyMetrics))}
            lessons = session.scalars(select(Booking)).all()
        first = day_of(self.replay.start, zone) - timedelta(days=1)
        for offset in range(self.replay.plan.days):
            day = first + timedelta(days=offset)
            row = rows.get(day)
            if row is None:
                self.broken(f"the day {day} has not been counted", "analytics")
                return
            for column, counted in self._recount(lessons, day).items():
                if getattr(row, column) != counted:
                    self.broken(f"{column} of {day} is {getattr(row, column)}, counted {counted}")

    def _recount(self, lessons: Sequence[Booking], day: date) -> dict[str, int]:
        def on_day(instant: datetime | None) -> bool:
            return instant is not None and day_of(instant, self.replay.zone) == day

        completed = [lesson for lesson in lessons if on_day(lesson.completed_at)]
        return {
            "bookings_created": sum(on_day(lesson.created_at) for lesson in lessons),
            "bookings_completed": len(completed),
            "bookings_cancelled": sum(on_day(lesson.cancelled_at) for lesson in lessons),
            "no_shows": sum(on_day(lesson.no_show_at) for lesson in lessons),
            "revenue_cents": sum(lesson.price_cents for lesson in completed),
        }
