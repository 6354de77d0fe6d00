"""The right to send a mail: a lease on its row, by conditional updates.

Where a mail has come to its end, the secret that it carried is forgotten in the same
transaction.
"""

from collections.abc import Sequence
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
    literal,
    select,
    update,
)
from sqlalchemy.orm import Session

from app.models import EMAIL_MESSAGES, EmailKind, EmailMessage, EmailState, PasswordReset


@dataclass(frozen=True)
class Claimable:
    """A mail as it was when it could be claimed."""

    email_id: int
    kind: EmailKind
    claims: int
    takeovers: int
    """How often a claim of this mail was taken over, and will have been with the next one."""


@dataclass(frozen=True)
class Claim:
    """The right to send one mail, for a while."""

    email_id: int
    kind: EmailKind
    number: int
    """Tells one holder of the right from the next."""
    takeovers: int
    """How often a claim of this mail was taken over, this one included."""
    since: datetime

    @property
    def carries_secret(self) -> bool:
        return self.kind is EmailKind.PASSWORD_RESET


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
    """The statement that claims the mail ``email_id`` at ``now``, ``until`` then, if it still
    has so many ``claims``, and marks ``accepted``, which may be null, sent."""
    accepted = _mails.c.id == bindparam("accepted")
    unclaimed_since = _mails.c.claims == bindparam("claims")
    now, until = (bindparam(name, type_=_mails.c.sent_at.type) for name in ("now", "until"))
    sent, sending = (
        literal(state, _mails.c.state.type) for state in (EmailState.SENT, EmailState.SENDING)
    )
    taken_over = _of_mail & (_mails.c.state == EmailState.SENDING)
    return (
        update(_mails)
        .where(
            _mails.c.id.in_([bindparam("accepted"), bindparam("email_id")]),
            accepted | (unclaimed_since & claimable(now, include_failed=include_failed)),
        )
        .values(
            state=case((accepted, sent), else_=sending),
            sent_at=case((accepted, now), else_=_mails.c.sent_at),
            error=case((accepted, None), else_=_mails.c.error),
            leased_until=case((accepted, None), else_=until),
            claims=_mails.c.claims + case((accepted, 0), else_=1),
            uncertain=_mails.c.uncertain + case((taken_over, 1), else_=0),
            uncertain_at=case((taken_over, now), else_=_mails.c.uncertain_at),
        )
    )


# Built once: they are run for each mail.
_CLAIM = {failed_too: claiming(include_failed=failed_too) for failed_too in (False, True)}
_HELD = select(_mails.c.id).where(*_held_by_claim)
_MARK_SENT = (
    update(_mails)
    .where(_of_mail)
    .values(state=EmailState.SENT, sent_at=bindparam("now"), leased_until=None, error=None)
)


def all_claimable(
    connection: Connection, email_ids: Sequence[int], *, now: datetime, include_failed: bool
) -> list[Claimable]:
    """Those of the mails that can be claimed; what was tried least comes first, so that a mail
    at which the server always hangs up does not keep the others waiting."""
    taken_over = case((_mails.c.state == EmailState.SENDING, 1), else_=0)
    rows = connection.execute(
        select(_mails.c.id, _mails.c.kind, _mails.c.claims, _mails.c.uncertain + taken_over)
        .where(_mails.c.id.in_(email_ids), claimable(now, include_failed=include_failed))
        .order_by(_mails.c.claims, _mails.c.id)
    )
    return [Claimable(*row) for row in rows]


def claim(
    connection: Connection,
    mail: Claimable,
    *,
    now: datetime,
    lease: timedelta,
    include_failed: bool,
    accepted: Claim | None = None,
) -> Claim | None:
    """Claim a mail until ``now + lease``; ``None`` where it is not free, or has been claimed
    since.

    The same statement marks ``accepted`` sent, as ``mark_sent`` does; it must carry no secret.
    Of a mail that is being sent the row is there: the cleanup leaves it alone.
    """
    changed = connection.execute(
        _CLAIM[include_failed],
        {
            "email_id": mail.email_id,
            "claims": mail.claims,
            "accepted": None if accepted is None else accepted.email_id,
            "now": now,
            "until": now + lease,
        },
    ).rowcount
    if changed == (accepted is not None):
        return None
    return Claim(mail.email_id, mail.kind, mail.claims + 1, mail.takeovers, since=now)


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
    if not claim.carries_secret:
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
