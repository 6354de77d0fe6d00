"""When an instructor teaches: every week, and on single dates."""

import datetime as dt

from sqlalchemy import CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from app.domain.availability import AvailabilityChange
from app.models.base import Base
from app.models.types import UtcDateTime, text_enum


class AvailabilityWindow(Base):
    """A span of every week in the wall-clock time of the instructor's zone."""

    __tablename__ = "availability_windows"
    __table_args__ = (
        CheckConstraint("weekday BETWEEN 0 AND 6", name="weekday_known"),
        CheckConstraint(
            "starts_minute >= 0 AND starts_minute < ends_minute AND ends_minute <= 1440",
            name="span_within_a_day",
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    instructor_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    weekday: Mapped[int]
    """0 is Monday, as in ``date.weekday()``."""
    starts_minute: Mapped[int]
    """Minutes after midnight on the wall clock."""
    ends_minute: Mapped[int]
    """As ``starts_minute``; 1440 is the end of the day."""


class AvailabilityException(Base):
    """A span of one date on which the instructor teaches against the weekly windows, or not."""

    __tablename__ = "availability_exceptions"
    __table_args__ = (
        CheckConstraint(
            "starts_minute >= 0 AND starts_minute < ends_minute AND ends_minute <= 1440",
            name="span_within_a_day",
        ),
        Index("ix_availability_exceptions_instructor_id_date", "instructor_id", "date"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    instructor_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    date: Mapped[dt.date]
    """In the instructor's zone."""
    change: Mapped[AvailabilityChange] = mapped_column(text_enum(AvailabilityChange))
    starts_minute: Mapped[int]
    ends_minute: Mapped[int]


class StaleAvailability(Base):
    """How often an instructor's bookings or windows changed, and which of it the cache knows.

    Written in the transaction of the change, and never deleted: a number that began again
    could not tell an old change from a new one. A time would not do either, since
    transactions become visible later than the instant that they note.
    """

    __tablename__ = "stale_availability"

    instructor_id: Mapped[int] = mapped_column(ForeignKey("users.id"), primary_key=True)
    changes: Mapped[int]
    cached_changes: Mapped[int] = mapped_column(default=0)
    """``changes`` as it was when the cached slots were computed; less means stale."""
    changed_at: Mapped[dt.datetime] = mapped_column(UtcDateTime)
