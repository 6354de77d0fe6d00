"""What became of mails, for an operator: read only, and no address in full."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Row, Select, String, cast, func, select
from sqlalchemy.orm import Session

from app.domain import days, personal_data
from app.domain.email_kinds import LESSON_MAILS
from app.models import EMAIL_MESSAGES, USERS, EmailKind, EmailState, OutboxEntry
from app.services.email import DELIVER
from app.services.email_letters.letter import key_of
from app.services.email_rendering import message_id
from app.settings import Settings

CLOCKS_APART = timedelta(minutes=1)
"""By which the row of a mail may be younger than the entry that delivers it."""

_mails = EMAIL_MESSAGES.c


@dataclass(frozen=True)
class Mail:
    """One mail, and how far it has come."""

    id: int
    kind: EmailKind
    about: str
    """In words: ``booking 12``, or the day of a digest."""
    booking: int | None
    """``None`` where the mail is not about a booking."""
    user: int
    """The recipient."""
    address: str
    """The recipient's, masked."""
    state: EmailState
    created_at: datetime
    claims: int
    leased_until: datetime | None
    """Until then the mail belongs to the delivery that claimed it."""
    uncertain: int
    """How often its fate was unknown and it was sent again: it may be duplicated."""
    uncertain_at: datetime | None
    """When that happened last; ``None`` where it did not, or is not known."""
    sent_at: datetime | None
    failed_at: datetime | None
    error: str | None
    message_id: str
    """The same for every copy of this mail."""


@dataclass(frozen=True)
class Wanted:
    """Which mails are asked for; ``None`` is any."""

    state: EmailState | None = None
    booking: int | None = None
    user: int | None = None
    duplicated: bool = False
    """Only those whose fate was unknown."""

    @property
    def conditions(self) -> list[ColumnElement[bool]]:
        conditions = []
        if self.state is not None:
            conditions.append(_mails.state == self.state)
        if self.booking is not None:
            conditions += [_mails.kind.in_(LESSON_MAILS), _mails.subject_id == self.booking]
        if self.user is not None:
            conditions.append(_mails.recipient_id == self.user)
        if self.duplicated:
            conditions.append(_mails.uncertain > 0)
        return conditions


def find(
    session: Session, wanted: Wanted, *, settings: Settings, limit: int | None = None
) -> list[Mail]:
    """The wanted mails, those planned last first. Reads the whole table."""
    chosen = _SELECT.where(*wanted.conditions).order_by(_mails.id.desc()).limit(limit)
    return [_mail(row, settings) for row in session.execute(chosen)]


def count(session: Session, wanted: Wanted) -> int:
    """How many mails ``find`` finds without a limit."""
    chosen = select(func.count()).select_from(EMAIL_MESSAGES).where(*wanted.conditions)
    return session.scalars(chosen).one()


def read(session: Session, email_id: int, *, settings: Settings) -> Mail | None:
    """The mail with this id."""
    row = session.execute(_SELECT.where(_mails.id == email_id)).one_or_none()
    return None if row is None else _mail(row, settings)


def deliveries(session: Session, mail: Mail) -> list[OutboxEntry]:
    """The entries that deliver the mail, the oldest first. Reads the whole outbox.

    Done ones are there for ``OUTBOX_RETENTION_DAYS``.
    """
    chosen = (
        select(OutboxEntry)
        .where(
            OutboxEntry.task == DELIVER,
            OutboxEntry.created_at >= mail.created_at - CLOCKS_APART,
            # Few of the others have these digits among their arguments.
            cast(OutboxEntry.args, String).contains(str(mail.id)),
        )
        .order_by(OutboxEntry.created_at, OutboxEntry.id)
    )
    return [entry for entry in session.scalars(chosen) if mail.id in _email_ids(entry)]


_SELECT: Select[*tuple[object, ...]] = select(EMAIL_MESSAGES, USERS.c.email).join(
    USERS, USERS.c.id == _mails.recipient_id
)


def _email_ids(entry: OutboxEntry) -> Sequence[int]:
    chosen = entry.args[0] if entry.args else entry.kwargs.get("email_ids")
    return chosen if isinstance(chosen, list) else []


def _mail(row: Row[*tuple[object, ...]], settings: Settings) -> Mail:
    found = row._mapping
    kind, subject, user = (found[_mails[name]] for name in ("kind", "subject_id", "recipient_id"))
    return Mail(
        about=_about(kind, subject),
        booking=subject if kind in LESSON_MAILS else None,
        user=user,
        address=personal_data.masked(found[USERS.c.email]),
        message_id=message_id(key_of(kind, subject, user), settings),
        **{
            name: found[_mails[name]]
            for name in (
                *("id", "kind", "state", "created_at", "claims", "leased_until", "uncertain"),
                *("uncertain_at", "sent_at", "failed_at", "error"),
            )
        },
    )


def _about(kind: EmailKind, subject: int) -> str:
    if kind in LESSON_MAILS:
        return f"booking {subject}"
    if kind is EmailKind.PASSWORD_RESET:
        return f"password reset {subject}"
    return str(days.numbered(subject))
