"""Who wants which mails."""

from typing import Any

from sqlalchemy import Column, ColumnElement, true

from app.models import USERS, EmailKind

# The table's: an attribute of the class would make any statement one of the ORM.
_users = USERS.c

# A password reset has no choice: its reader asked for it, and cannot sign in without it.
_CHOICES: dict[EmailKind, Column[Any]] = {
    EmailKind.BOOKING_CONFIRMATION: _users.wants_booking_mails,
    EmailKind.BOOKING_CANCELLATION: _users.wants_booking_mails,
    EmailKind.NO_SHOW: _users.wants_booking_mails,
    EmailKind.REMINDER_24H: _users.wants_reminders,
    EmailKind.REMINDER_1H: _users.wants_reminders,
    EmailKind.DIGEST: _users.wants_digests,
    EmailKind.WEEKLY_REPORT: _users.wants_digests,
}


def is_wanted(kind: EmailKind) -> ColumnElement[bool]:
    """The condition that a user of the statement wants mails of ``kind``."""
    choice = _CHOICES.get(kind)
    return true() if choice is None else choice.is_(True)
