"""The right to send a mail: a lease on its row, by conditional updates.

Where a mail has come to its end, the secret that it carried is forgotten in the same
transaction.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Executable,
    bindparam,
    case,
    func,
    select,
    update,
)
from sqlalchemy.orm import Session

from app.models import EMAIL_MESSAGES, EmailKind, EmailMessage, EmailState, PasswordReset


@dataclass(frozen=True)
class Claim:
    """The right to send one mail, for a while."""

    email_id: int
    number: int
    """Tells one holder of the right from the next."""
    takeovers: int
    """How often a claim of this mail was taken over, this one included."""
    kind: EmailKind
    since: datetime


def claimable(now: datetime | BindParameter[Any], *, include_failed: bool) -> ColumnElement[bool]:
    """The condition that keeps two workers from sending one mail."""
    waits = EmailMessage.state == EmailState.QUEUED
    abandoned = (EmailMessage.state == EmailState.SENDING) & (EmailMessage.leased_until <= now)
    if include_failed:
        return waits | abandoned | (EmailMessage.state == EmailState.FAILED)
    return waits | abandoned


_mails = EMAIL_MESSAGES
_of_mail = _mails.c.id == bindparam("email_id")
_held_by_claim = (
    _of_mail,
    _mails.c.state == EmailState.SENDING,
    _mails.c.claims == bindparam("number"),
)


def claiming(*, include_failed: bool) -> Executable:
    """The statement that claims the mail ``email_id`` at ``now``, ``until`` then."""
    return (
        update(_mails)
        .where(_of_mail, claimable(bindparam("now"), include_failed=include_failed))
        .values(
            state=EmailState.SENDING,
            leased_until=bindparam("until"),
            claims=_mails.c.claims + 1,
            uncertain=_mails.c.uncertain + case((_mails.c.state == EmailState.SENDING, 1), else_=0),
        )
        .returning(_mails.c.claims, _mails.c.uncertain, _mails.c.kind)
    )


# Built once: they are run for each mail.
_CLAIM = {failed_too: claiming(include_failed=failed_too) for failed_too in (False, True)}
_HELD = select(_mails.c.id).where(*_held_by_claim)
_MARK_SENT = (
    update(_mails)
    .where(_of_mail)
    .values(state=EmailState.SENT, sent_at=bindparam("now"), leased_until=None, error=None)
)


def claim(
    connection: Connection, email_id: int, *, now: datetime, lease: timedelta, include_failed: bool
) -> Claim | None:
    """Claim a mail until ``now + lease``; ``None`` where it is not free."""
    claimed = connection.execute(
        _CLAIM[include_failed], {"email_id": email_id, "now": now, "until": now + lease}
    ).one_or_none()
    if claimed is None:
        return None
    return Claim(email_id, claimed.claims, claimed.uncertain, claimed.kind, since=now)


def is_held(connection: Connection, claim: Claim) -> bool:
    """Whether the claim is still in force."""
    held = connection.scalar(_HELD, {"email_id": claim.email_id, "number": claim.number})
    return held is not None


def put_back(connection: Connection, claim: Claim, error: str) -> bool:
    """Give a claim up, so that its mail waits again; whether it was still held."""
    return _close(connection, claim, state=EmailState.QUEUED, error=error)


def cancel(connection: Connection, claim: Claim) -> bool:
    """Give a claim up and withdraw its mail; whether it was still held."""
    return _close_for_good(connection, claim, state=EmailState.CANCELLED, error=None)


def close_failed(session: Session, claim: Claim, error: str, *, now: datetime) -> bool:
    """Give a claim and its mail up; whether the claim was still held."""
    connection = session.connection()
    return _close_for_good(connection, claim, state=EmailState.FAILED, error=error, failed_at=now)


def _close_for_good(connection: Connection, claim: Claim, **values: Any) -> bool:
    closed = _close(connection, claim, **values)
    if closed:
        _forget_secret(connection, claim)
    return closed


def _close(connection: Connection, claim: Claim, **values: Any) -> bool:
    closed = connection.scalar(
        update(_mails)
        .where(*_held_by_claim)
        .values(leased_until=None, **values)
        .returning(_mails.c.id),
        {"email_id": claim.email_id, "number": claim.number},
    )
    return closed is not None


def mark_sent(connection: Connection, claim: Claim, *, now: datetime) -> None:
    """Say that the server has accepted a mail, whoever holds the claim by now.

    It is a fact, and a worker that took the claim over sees it before it sends a second one.
    """
    connection.execute(_MARK_SENT, {"email_id": claim.email_id, "now": now})
    _forget_secret(connection, claim)


def _forget_secret(connection: Connection, claim: Claim) -> None:
    if claim.kind is not EmailKind.PASSWORD_RESET:
        return
    subject = select(_mails.c.subject_id).where(_mails.c.id == claim.email_id)
    connection.execute(
        update(PasswordReset)
        .where(PasswordReset.id == subject.scalar_subquery())
        .values(token=None)
    )


def count_uncertain(session: Session, *, since: datetime) -> int:
    """How many of the mails that were sent after ``since`` may have gone out more than once."""
    return (
        session.scalar(
            select(func.count()).where(EmailMessage.sent_at > since, EmailMessage.uncertain > 0)
        )
        or 0
    )
