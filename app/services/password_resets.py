"""Letting somebody in who has forgotten the password.

A token is 256 random bits, so a plain hash of it cannot be turned back by trying. The
table keeps the token itself only until its mail is out; afterwards the hash, by which it
is looked up: how long that takes tells nothing about any token.
"""

from base64 import urlsafe_b64encode
from datetime import datetime, timedelta
from hashlib import sha256
from random import Random

from sqlalchemy import ColumnElement, and_, select, update
from sqlalchemy.orm import Session

from app import outbox
from app.models import EmailKind, PasswordReset, User
from app.services.email import enqueue_deliveries, plan
from app.services.errors import MissingRowError

SEND_PASSWORD_RESET = "app.tasks.email.send_password_reset"  # noqa: S105 - a task's name

VALID_FOR = timedelta(hours=1)
URGENCY = 8
"""Above all queues: a person sits before a closed door."""
TOKEN_BYTES = 32


def request(session: Session, address: str, *, now: datetime, rng: Random) -> None:
    """Make a reset for the user with this mail address, and plan its mail.

    Older ones of the same user are void from then on. For an unknown address nothing is
    kept and nothing sent; the caller is told nothing in either case, and so tells nobody
    who has an account. ``rng`` is ``entropy.rng()``, which nobody can predict in production.
    """
    token = urlsafe_b64encode(rng.randbytes(TOKEN_BYTES)).decode().rstrip("=")
    # Locked: of two requests at once the second sees, and makes void, what the first made.
    user_id = session.scalar(select(User.id).where(User.email == address).with_for_update())
    if user_id is None:
        return
    session.execute(
        update(PasswordReset)
        .where(PasswordReset.user_id == user_id, _is_open(now))
        .values(expires_at=now, token=None)
        .execution_options(synchronize_session=False)
    )
    reset = PasswordReset(
        user_id=user_id,
        token=token,
        token_hash=_hash(token),
        created_at=now,
        expires_at=now + VALID_FOR,
    )
    session.add(reset)
    session.flush()
    outbox.enqueue(
        session,
        SEND_PASSWORD_RESET,
        reset.id,
        key=f"password-reset:{reset.id}",
        urgency=URGENCY,
    )


def queue_mail(session: Session, reset_id: int, *, now: datetime) -> list[int]:
    """Plan the mail of a reset, and its delivery; the new mail's id.

    None where the reset is used, void or expired: its token is forgotten then. Raises
    ``MissingRowError``.
    """
    if session.get(PasswordReset, reset_id) is None:
        raise MissingRowError(f"password reset {reset_id}")
    readers = (
        select(PasswordReset.id, User.id)
        .join(User, User.id == PasswordReset.user_id)
        .where(PasswordReset.id == reset_id, can_be_mailed(now))
    )
    email_ids = plan(session, EmailKind.PASSWORD_RESET, readers, now=now)
    enqueue_deliveries(session, email_ids, urgency=URGENCY)
    session.execute(
        update(PasswordReset)
        .where(PasswordReset.id == reset_id, ~_is_open(now))
        .values(token=None)
        .execution_options(synchronize_session=False)
    )
    return email_ids


def redeem(session: Session, token: str, *, now: datetime) -> int | None:
    """The id of the user who may set a new password; a token opens once, before it expires.

    ``None`` for every other token: unknown, used, void and expired look the same.
    """
    return session.scalar(
        update(PasswordReset)
        .where(PasswordReset.token_hash == _hash(token), _is_open(now))
        .values(used_at=now, token=None)
        .returning(PasswordReset.user_id)
        .execution_options(synchronize_session=False)
    )


def can_be_mailed(now: datetime) -> ColumnElement[bool]:
    """The condition that a reset's token is still known and still opens."""
    return and_(_is_open(now), PasswordReset.token.is_not(None))


def _is_open(now: datetime) -> ColumnElement[bool]:
    return and_(PasswordReset.used_at.is_(None), PasswordReset.expires_at > now)


def _hash(token: str) -> str:
    # Whatever somebody typed: what cannot be encoded is no token.
    return sha256(token.encode(errors="replace")).hexdigest()
