"""One text for many people, in pages: each page and the plan of the next in one transaction."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Select, String, cast, func, literal, select
from sqlalchemy.orm import Session

from app import outbox
from app.db import insert_for
from app.domain.notifications import BODY_LENGTH, TITLE_LENGTH
from app.models import Broadcast, Notification, NotificationKind, Role, User
from app.services.errors import MissingRowError

BROADCAST = "app.tasks.notifications.broadcast"

PAGE = 1_000
"""Readers in one transaction: some hundredths of a second on either database."""


@dataclass(frozen=True)
class BroadcastPage:
    created: int
    """Notifications that are new."""
    finished: bool


def create_broadcast(
    session: Session, *, title: str, body: str, audience: Role | None = None, now: datetime
) -> int:
    """Tell everybody, or all of one role, something; the broadcast's id.

    Who signs up while its pages are written may be left out. Raises ``ValueError`` for a
    text that is empty or too long.
    """
    _check("title", title, longest=TITLE_LENGTH)
    _check("body", body, longest=BODY_LENGTH)
    broadcast = Broadcast(title=title, body=body, audience=audience, created_at=now)
    session.add(broadcast)
    session.flush()
    outbox.enqueue(session, BROADCAST, broadcast.id, key=_page_key(broadcast.id, 0))
    return broadcast.id


def write_page(
    session: Session, broadcast_id: int, *, after_user_id: int = 0, now: datetime, page: int = PAGE
) -> BroadcastPage:
    """Write the notifications of the next ``page`` readers by id, and plan the page after it.

    Whoever has theirs gets no second one. Raises ``MissingRowError``.
    """
    broadcast = session.get(Broadcast, broadcast_id)
    if broadcast is None:
        raise MissingRowError(f"broadcast {broadcast_id}")
    readers = select(User.id).where(User.id > after_user_id)
    if broadcast.audience is not None:
        readers = readers.where(User.role == broadcast.audience)
    chosen = readers.order_by(User.id).limit(page).subquery()
    number, last = session.execute(select(func.count(), func.max(chosen.c.id))).one()
    created = 0
    if number:
        created = _insert(session, broadcast, readers.where(User.id <= last), now=now)
    if number == page:
        outbox.enqueue(session, BROADCAST, broadcast_id, last, key=_page_key(broadcast_id, last))
        return BroadcastPage(created=created, finished=False)
    broadcast.finished_at = broadcast.finished_at or now
    return BroadcastPage(created=created, finished=True)


def _insert(session: Session, broadcast: Broadcast, readers: Select[int], *, now: datetime) -> int:
    key = literal(f"broadcast:{broadcast.id}:").concat(cast(User.id, String))
    rows = readers.add_columns(
        literal(NotificationKind.BROADCAST, Notification.kind.type),
        key,
        literal(broadcast.title),
        literal(broadcast.body),
        literal(now, Notification.created_at.type),
    )
    columns = [
        Notification.user_id,
        Notification.kind,
        Notification.key,
        Notification.title,
        Notification.body,
        Notification.created_at,
    ]
    created = session.scalars(
        insert_for(session)(Notification)
        .from_select(columns, rows)
        .on_conflict_do_nothing(index_elements=[Notification.key])
        .returning(Notification.id)
    )
    return len(created.all())


def _check(what: str, text: str, *, longest: int) -> None:
    if not text.strip():
        raise ValueError(f"the {what} of a broadcast is empty: say what it is about")
    if len(text) > longest:
        raise ValueError(
            f"the {what} of a broadcast has {len(text)} characters: use at most {longest}"
        )


def _page_key(broadcast_id: int, after_user_id: int) -> str:
    return f"broadcast:{broadcast_id}:after:{after_user_id}"
