"""What an instructor offers."""

from typing import cast

from sqlalchemy import CheckConstraint, ForeignKey, String, Table
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.models.base import Base
from app.models.user import User


class Service(Base):
    __tablename__ = "services"
    __table_args__ = (
        CheckConstraint("minutes > 0", name="minutes_positive"),
        CheckConstraint("price_cents >= 0", name="price_not_negative"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    instructor_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    name: Mapped[str] = mapped_column(String(200))
    minutes: Mapped[int]
    price_cents: Mapped[int]

    instructor: Mapped[User] = relationship()


SERVICES = cast(Table, Service.__table__)
"""For statements that are run for each mail, which need nothing of the ORM."""
