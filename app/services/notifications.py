"""What people see under the bell of the web site: each event once."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import bindparam, select, update
from sqlalchemy.orm import Session, aliased

from app.db import insert_for
from app.domain.no_shows import Side, absent
from app.domain.notifications import TRUE_OF, booking_text
from app.models import Booking, Notification, NotificationKind, Service, User
from app.services.errors import MissingRowError

NOTIFY_BOOKING = "app.tasks.notifications.notify_booking"

_reader, _other = aliased(User), aliased(User)
_READERS = (
    select(
        Booking.id,
        Booking.instructor_id,
        Booking.student_checked_in_at,
        Booking.instructor_checked_in_at,
        Service.name.label("service_name"),
        _reader.id.label("reader_id"),
        _other.name.label("other_name"),
    )
    .join(Service, Service.id == Booking.service_id)
    .join(_reader, _reader.id.in_([Booking.student_id, Booking.instructor_id]))
    .join(
        _other,
        _other.id.in_([Booking.student_id, Booking.instructor_id]) & (_other.id != _reader.id),
    )
    .where(
        Booking.id.in_(bindparam("booking_ids", expanding=True)),
        Booking.status.in_(bindparam("true_of", expanding=True)),
    )
    .order_by(Booking.id, _reader.id)
)


def create(
    session: Session,
    *,
    user_id: int,
    kind: NotificationKind,
    key: str,
    title: str,
    body: str,
    now: datetime,
) -> bool:
    """Tell somebody something; whether it is new. A second one with the same key is nothing."""
    created = session.scalar(
        insert_for(session)(Notification)
        .values(user_id=user_id, kind=kind, key=key, title=title, body=body, created_at=now)
        .on_conflict_do_nothing(index_elements=[Notification.key])
        .returning(Notification.id)
    )
    return created is not None


def notify_booking(
    session: Session, booking_id: int, kind: NotificationKind, *, now: datetime
) -> int:
    """Tell both sides of a lesson what happened to it; the number of new notifications.

    None where it is no longer true. Raises ``MissingRowError``, and ``ValueError`` for a
    kind that is not about a lesson.
    """
    if kind not in TRUE_OF:
        raise ValueError(f"{kind.value!r} is not about a lesson: use one of {sorted(TRUE_OF)}")
    if session.get(Booking, booking_id) is None:
        raise MissingRowError(f"booking {booking_id}")
    return notify_bookings(session, [booking_id], kind, now=now)


def notify_bookings(
    session: Session, booking_ids: Collection[int], kind: NotificationKind, *, now: datetime
) -> int:
    """As ``notify_booking`` for each of the lessons, in as many statements as for one."""
    found = session.execute(
        _READERS, {"booking_ids": list(booking_ids), "true_of": list(TRUE_OF[kind])}
    ).all()
    rows = []
    for row in found:
        text = booking_text(
            kind,
            reader=Side.INSTRUCTOR if row.reader_id == row.instructor_id else Side.STUDENT,
            absent=absent(
                student_checked_in_at=row.student_checked_in_at,
                instructor_checked_in_at=row.instructor_checked_in_at,
            ),
            service_name=row.service_name,
            other_name=row.other_name,
        )
        rows.append(
            {
                "user_id": row.reader_id,
                "kind": kind,
                "key": f"{kind}:{row.id}:{row.reader_id}",
                "title": text.title,
                "body": text.body,
                "booking_id": row.id,
                "created_at": now,
            }
        )
    if not rows:
        return 0
    created = session.scalars(
        insert_for(session)(Notification)
        .on_conflict_do_nothing(index_elements=[Notification.key])
        .returning(Notification.id),
        rows,
    )
    return len(created.all())


def mark_read(session: Session, notification_id: int, *, user_id: int, now: datetime) -> bool:
    """Note that its reader has seen a notification; whether it was unread.

    Raises ``MissingRowError`` where this person has no such notification.
    """
    mine = (Notification.id == notification_id) & (Notification.user_id == user_id)
    marked = session.scalar(
        update(Notification)
        .where(mine, Notification.read_at.is_(None))
        .values(read_at=now)
        .returning(Notification.id)
        .execution_options(synchronize_session=False)
    )
    if marked is None and session.scalar(select(Notification.id).where(mine)) is None:
        raise MissingRowError(f"notification {notification_id}")
    return marked is not None


def mark_all_read(session: Session, user_id: int, *, now: datetime) -> int:
    """Note that somebody has seen all that they were told until ``now``; how many were unread."""
    marked = session.scalars(
        update(Notification)
        .where(
            Notification.user_id == user_id,
            Notification.read_at.is_(None),
            Notification.created_at <= now,
        )
        .values(read_at=now)
        .returning(Notification.id)
        .execution_options(synchronize_session=False)
    )
    return len(marked.all())
