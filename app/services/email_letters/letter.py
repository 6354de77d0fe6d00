"""What all mails have in common: which one it is, and who reads it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from app.models import EmailKind
from app.services.email_letters.wording import local_time, zone_of
from app.settings import Settings


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
        """Tells this mail from every other one, and stays the same."""
        return f"{self.kind}.{self.subject_id}.{self.recipient_id}"

    def in_local_time(self, instant: datetime) -> str:
        """``instant`` as the reader's clock shows it, with the name of the zone."""
        return local_time(instant, zone_of(self.reader_zone, reader_id=self.recipient_id))


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
