"""The right to send a mail: a lease on its row, by conditional updates.

Where a mail has come to its end, the secret that it carried is forgotten in the same
transaction.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, case, select, update
from sqlalchemy.orm import Session

from app.models import EmailKind, EmailMessage, EmailState, PasswordReset


@dataclass(frozen=True)
class Claim:
    """The right to send one mail, for a while."""

    email_id: int
    number: int
    """Tells one holder of the right from the next."""
    takeovers: int
    """How often a claim of this mail was taken over, this one included."""
    kind: EmailKind


def claimable(now: datetime, *, include_failed: bool) -> ColumnElement[bool]:
    """The condition that keeps two workers from sending one mail."""
    waits = EmailMessage.state == EmailState.QUEUED
    abandoned = (EmailMessage.state == EmailState.SENDING) & (EmailMessage.leased_until <= now)
    if include_failed:
        return waits | abandoned | (EmailMessage.state == EmailState.FAILED)
    return waits | abandoned


def claim(
    session: Session, email_id: int, *, now: datetime, lease: timedelta, include_failed: bool
) -> Claim | None:
    """Claim a mail until ``now + lease``; ``None`` where it is not free."""
    claimed = session.execute(
        update(EmailMessage)
        .where(EmailMessage.id == email_id, claimable(now, include_failed=include_failed))
        .values(
            state=EmailState.SENDING,
            leased_until=now + lease,
            claims=EmailMessage.claims + 1,
            uncertain=EmailMessage.uncertain
            + case((EmailMessage.state == EmailState.SENDING, 1), else_=0),
        )
        .returning(EmailMessage.claims, EmailMessage.uncertain, EmailMessage.kind)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if claimed is None:
        return None
    return Claim(email_id, claimed.claims, claimed.uncertain, claimed.kind)


def is_held(session: Session, claim: Claim) -> bool:
    """Whether the claim is still in force."""
    return session.scalar(select(EmailMessage.id).where(*_held(claim))) is not None


def put_back(session: Session, claim: Claim, error: str) -> bool:
    """Give a claim up, so that its mail waits again; whether it was still held."""
    return _close(session, claim, state=EmailState.QUEUED, error=error)


def cancel(session: Session, claim: Claim) -> bool:
    """Give a claim up and withdraw its mail; whether it was still held."""
    return _close_for_good(session, claim, state=EmailState.CANCELLED, error=None)


def close_failed(session: Session, claim: Claim, error: str, *, now: datetime) -> bool:
    """Give a claim and its mail up; whether the claim was still held."""
    return _close_for_good(session, claim, state=EmailState.FAILED, error=error, failed_at=now)


def _close_for_good(session: Session, claim: Claim, **values: Any) -> bool:
    closed = _close(session, claim, **values)
    if closed:
        _forget_secret(session, claim)
    return closed


def _close(session: Session, claim: Claim, **values: Any) -> bool:
    closed = session.scalar(
        update(EmailMessage)
        .where(*_held(claim))
        .values(leased_until=None, **values)
        .returning(EmailMessage.id)
        .execution_options(synchronize_session=False)
    )
    return closed is not None


def mark_sent(session: Session, claim: Claim, *, now: datetime) -> None:
    """Say that the server has accepted a mail, whoever holds the claim by now.

    It is a fact, and a worker that took the claim over sees it before it sends a second one.
    """
    session.execute(
        update(EmailMessage)
        .where(EmailMessage.id == claim.email_id)
        .values(state=EmailState.SENT, sent_at=now, leased_until=None, error=None)
        .execution_options(synchronize_session=False)
    )
    _forget_secret(session, claim)


def _forget_secret(session: Session, claim: Claim) -> None:
    if claim.kind is not EmailKind.PASSWORD_RESET:
        return
    subject = select(EmailMessage.subject_id).where(EmailMessage.id == claim.email_id)
    session.execute(
        update(PasswordReset)
        .where(PasswordReset.id == subject.scalar_subquery())
        .values(token=None)
        .execution_options(synchronize_session=False)
    )


def _held(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    return (
        EmailMessage.id == claim.email_id,
        EmailMessage.state == EmailState.SENDING,
        EmailMessage.claims == claim.number,
    )
