"""The mail that lists what somebody has not read."""

from dataclasses import dataclass
from datetime import date, datetime, tzinfo
from typing import Any

from sqlalchemy import Connection, func, select

from app.domain.days import numbered
from app.models import Notification, NotificationKind
from app.services.digests import unread_of
from app.services.email_letters.letter import Envelope, Letter
from app.services.email_letters.wording import calendar_day, one_line, untrusted
from app.settings import Settings

LISTED = 10
"""Notifications that a digest shows, the latest; the rest is a number."""


@dataclass(frozen=True)
class Unread:
    title: str
    body: str
    created_at: datetime
    announced: bool = False
    """Whether an operator wrote it, for many people. Others' texts contain people's names."""

    def shown(self, text: str) -> str:
        return one_line(text) if self.announced else untrusted(text)


@dataclass(frozen=True, kw_only=True)
class DigestLetter(Letter):
    day: date
    listed: tuple[Unread, ...]
    """The latest first."""
    total: int

    @property
    def template(self) -> str:
        return "digest"

    @property
    def subject(self) -> str:
        noun = "notification" if self.total == 1 else "notifications"
        return f"{self.total} unread {noun} of {calendar_day(self.day)}"

    def facts(self, settings: Settings) -> dict[str, Any]:
        return {
            "day": calendar_day(self.day),
            "notifications": [
                {
                    "title": one.shown(one.title),
                    "body": one.shown(one.body),
                    "at": self.in_local_time(one.created_at),
                }
                for one in self.listed
            ],
            "more": self.total - len(self.listed),
        }


def read(connection: Connection, envelope: Envelope, *, zone: tzinfo) -> DigestLetter | None:
    """The digest of what is still unread; ``None`` where nothing is."""
    day = numbered(envelope.subject_id)
    rows = connection.execute(
        select(
            Notification.kind,
            Notification.title,
            Notification.body,
            Notification.created_at,
            func.count().over().label("total"),
        )
        .where(Notification.user_id == envelope.recipient_id, unread_of(day, zone))
        .order_by(Notification.created_at.desc(), Notification.id.desc())
        .limit(LISTED)
    ).all()
    if not rows:
        return None
    return DigestLetter(
        **vars(envelope),
        day=day,
        listed=tuple(
            Unread(row.title, row.body, row.created_at, row.kind is NotificationKind.BROADCAST)
            for row in rows
        ),
        total=rows[0].total,
    )
