"""What all mails have in common: which one it is, and who reads it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import Select, bindparam, select

from app.models import EMAIL_MESSAGES, USERS, EmailKind
from app.services.email_letters.wording import local_time, zone_of
from app.services.email_preferences import is_wanted
from app.settings import Settings


def key_of(kind: EmailKind, subject_id: int, recipient_id: int) -> str:
    """The text that tells a mail from every other one, the same for each copy of it."""
    return f"{kind}.{subject_id}.{recipient_id}"


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """Which mail it is, and its reader."""

    kind: EmailKind
    subject_id: int
    recipient_id: int
    reader_name: str
    reader_address: str
    reader_zone: str
    """IANA name."""

    @property
    def key(self) -> str:
        """See ``key_of``."""
        return key_of(self.kind, self.subject_id, self.recipient_id)

    def in_local_time(self, instant: datetime) -> str:
        """``instant`` as the reader's clock shows it, with the name of the zone."""
        return local_time(instant, zone_of(self.reader_zone, reader_id=self.recipient_id))


def envelope_of(kind: EmailKind) -> Select[*tuple[Any, ...]]:
    """What the mail ``email_id`` of ``kind`` has of an ``Envelope``, if its reader wants it.

    Of tables, and to be built once: building it, or the ORM's part, takes longer than to run it.
    """
    return (
        select(
            EMAIL_MESSAGES.c.subject_id,
            EMAIL_MESSAGES.c.recipient_id,
            USERS.c.name.label("reader_name"),
            USERS.c.email.label("reader_address"),
            USERS.c.time_zone.label("reader_zone"),
        )
        .join_from(EMAIL_MESSAGES, USERS, USERS.c.id == EMAIL_MESSAGES.c.recipient_id)
        .where(EMAIL_MESSAGES.c.id == bindparam("email_id"), is_wanted(kind))
    )


@dataclass(frozen=True, kw_only=True)
class Letter(Envelope, ABC):
    """All that one mail says; each family of mails has its own."""

    can_be_unsubscribed: ClassVar[bool] = True

    @property
    @abstractmethod
    def template(self) -> str:
        """Name of its templates under ``email/``, without the extension."""

    @property
    @abstractmethod
    def subject(self) -> str:
        """One line."""

    @abstractmethod
    def facts(self, settings: Settings) -> Mapping[str, Any]:
        """What its templates ask for, each text one line; the reader's name and the footer
        come with every mail."""
