"""Column types shared by the tables."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import DateTime, Dialect, Enum
from sqlalchemy.types import TypeDecorator, TypeEngine


class UtcDateTime(TypeDecorator[datetime]):
    """An instant: aware, in UTC, on every database.

    A naive datetime is refused with ``ValueError``: nobody could say which instant it
    means. SQLite keeps text without a zone, so instants go there as UTC and come back
    aware.
    """

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(DateTime(timezone=dialect.name != "sqlite"))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None or value.utcoffset() is None:
            raise ValueError(f"{value!r} is naive: pass an aware datetime, such as clock.utcnow()")
        in_utc = value.astimezone(UTC)
        return in_utc.replace(tzinfo=None) if dialect.name == "sqlite" else in_utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def text_enum(members: type[StrEnum]) -> Enum:
    """A column of ``members``' values as checked text, the same on every database."""
    return Enum(
        members,
        native_enum=False,
        length=20,
        create_constraint=True,
        name=f"{members.__name__.lower()}_known",
        values_callable=lambda enum: [member.value for member in enum],
    )
