"""What happened in one local day of the marketplace (``CELERY_TIMEZONE``)."""

import datetime as dt

from sqlalchemy import BigInteger, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base
from app.models.types import UtcDateTime


class BookingFigures:
    """Each booking counts on the day on which the thing happened to it, by its own instant:
    so a day that is over keeps its figures, whatever becomes of the bookings later."""

    bookings_created: Mapped[int]
    bookings_completed: Mapped[int]
    bookings_cancelled: Mapped[int]
    """Also those that expired unconfirmed."""
    no_shows: Mapped[int]
    revenue_cents: Mapped[int] = mapped_column(BigInteger)
    """Of the lessons completed that day."""
    active_students: Mapped[int]
    """Those with a confirmed lesson that began that day, whatever became of it."""
    computed_at: Mapped[dt.datetime] = mapped_column(UtcDateTime)


class DailyMetrics(BookingFigures, Base):
    """Figures of mails and tasks are never lowered: the rows that they are counted from are
    deleted after a while."""

    __tablename__ = "daily_metrics"

    date: Mapped[dt.date] = mapped_column(primary_key=True)
    active_instructors: Mapped[int]
    """As ``active_students``."""
    mails_sent: Mapped[int]
    mails_failed: Mapped[int]
    """Given up that day; also those that an operator got through later."""
    tasks_done: Mapped[int]
    """Of the outbox, like ``tasks_dead``."""
    tasks_dead: Mapped[int]


class ServiceMetrics(BookingFigures, Base):
    """No row: nothing happened to the service that day."""

    __tablename__ = "service_metrics"

    date: Mapped[dt.date] = mapped_column(primary_key=True)
    service_id: Mapped[int] = mapped_column(ForeignKey("services.id"), primary_key=True)


class InstructorMetrics(BookingFigures, Base):
    """As ``ServiceMetrics``."""

    __tablename__ = "instructor_metrics"

    date: Mapped[dt.date] = mapped_column(primary_key=True)
    instructor_id: Mapped[int] = mapped_column(ForeignKey("users.id"), primary_key=True)
