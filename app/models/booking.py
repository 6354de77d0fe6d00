"""A lesson that a student booked with an instructor."""

from datetime import datetime
from typing import cast

from sqlalchemy import CheckConstraint, ForeignKey, Index, Table
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.domain.bookings import BookingStatus
from app.models.base import Base
from app.models.service import Service
from app.models.types import UtcDateTime, text_enum
from app.models.user import User


class Booking(Base):
    """The database refuses that a booking which is not cancelled overlaps another one
    of the same instructor or the same student (triggers on SQLite, exclusion
    constraints on PostgreSQL: see the migrations)."""

    __tablename__ = "bookings"
    __table_args__ = (
        CheckConstraint("ends_at > starts_at", name="ends_after_start"),
        CheckConstraint("price_cents >= 0", name="price_not_negative"),
        Index("ix_bookings_instructor_id_starts_at", "instructor_id", "starts_at"),
        Index("ix_bookings_student_id_starts_at", "student_id", "starts_at"),
        Index("ix_bookings_status_starts_at", "status", "starts_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    student_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    instructor_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    service_id: Mapped[int] = mapped_column(ForeignKey("services.id"))
    starts_at: Mapped[datetime] = mapped_column(UtcDateTime)
    ends_at: Mapped[datetime] = mapped_column(UtcDateTime)
    status: Mapped[BookingStatus] = mapped_column(text_enum(BookingStatus))
    price_cents: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    confirmed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    cancelled_at: Mapped[datetime | None] = mapped_column(UtcDateTime, index=True)
    student_checked_in_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    instructor_checked_in_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    completed_at: Mapped[datetime | None] = mapped_column(UtcDateTime, index=True)
    no_show_at: Mapped[datetime | None] = mapped_column(UtcDateTime, index=True)

    student: Mapped[User] = relationship(foreign_keys=student_id)
    instructor: Mapped[User] = relationship(foreign_keys=instructor_id)
    service: Mapped[Service] = relationship()


BOOKINGS = cast(Table, Booking.__table__)
"""For statements that are run for each mail, which need nothing of the ORM."""
