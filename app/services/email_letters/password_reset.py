"""The mail that lets somebody in who has forgotten the password."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar
from urllib.parse import urlencode

from sqlalchemy import Connection, select

from app.models import PasswordReset
from app.services.email_letters.letter import Envelope, Letter
from app.services.password_resets import can_be_mailed
from app.settings import Settings

RESET_PATH = "/reset-password"
"""On the marketplace's web site; the token comes as its ``token`` parameter."""


@dataclass(frozen=True, kw_only=True)
class PasswordResetLetter(Letter):
    # It answers a request of its reader, and there is no list to leave: a header that
    # offers it would be untrue (RFC 2369 is about lists), and who followed it could never
    # get in again.
    can_be_unsubscribed: ClassVar[bool] = False

    token: str = field(repr=False)
    expires_at: datetime

    @property
    def template(self) -> str:
        return "password_reset"

    @property
    def subject(self) -> str:
        return "Set a new password"

    def facts(self, settings: Settings) -> dict[str, str]:
        return {
            "link": f"{settings.public_url}{RESET_PATH}?{urlencode({'token': self.token})}",
            "expires": self.in_local_time(self.expires_at),
        }


def read(
    connection: Connection, envelope: Envelope, *, now: datetime
) -> PasswordResetLetter | None:
    """The mail of a reset; ``None`` where its token opens nothing any more."""
    row = connection.execute(
        select(PasswordReset.token, PasswordReset.expires_at).where(
            PasswordReset.id == envelope.subject_id, can_be_mailed(now)
        )
    ).one_or_none()
    if row is None or row.token is None:
        return None
    return PasswordResetLetter(**vars(envelope), token=row.token, expires_at=row.expires_at)
