"""Who wants which mails."""

from sqlalchemy import ColumnElement, true
from sqlalchemy.orm import InstrumentedAttribute

from app.models import EmailKind, User

# A password reset has no choice: its reader asked for it, and cannot sign in without it.
_CHOICES: dict[EmailKind, InstrumentedAttribute[bool]] = {
    EmailKind.BOOKING_CONFIRMATION: User.wants_booking_mails,
    EmailKind.BOOKING_CANCELLATION: User.wants_booking_mails,
    EmailKind.NO_SHOW: User.wants_booking_mails,
    EmailKind.REMINDER_24H: User.wants_reminders,
    EmailKind.REMINDER_1H: User.wants_reminders,
    EmailKind.DIGEST: User.wants_digests,
    EmailKind.WEEKLY_REPORT: User.wants_digests,
}


def is_wanted(kind: EmailKind) -> ColumnElement[bool]:
    """The condition that a user of the statement wants mails of ``kind``."""
    choice = _CHOICES.get(kind)
    return true() if choice is None else choice.is_(True)
