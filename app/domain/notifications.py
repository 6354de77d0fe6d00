"""What a notification about a lesson says, and while what it says is true."""

from dataclasses import dataclass

from app.domain.bookings import BookingStatus
from app.domain.no_shows import Side
from app.domain.notification_kinds import NotificationKind

TITLE_LENGTH = 200
"""Characters of a title, at most."""
BODY_LENGTH = 2_000

TRUE_OF = {
    NotificationKind.BOOKING_CONFIRMED: frozenset(
        {BookingStatus.CONFIRMED, BookingStatus.COMPLETED, BookingStatus.NO_SHOW}
    ),
    NotificationKind.BOOKING_CANCELLED: frozenset({BookingStatus.CANCELLED}),
    NotificationKind.BOOKING_EXPIRED: frozenset({BookingStatus.CANCELLED}),
    NotificationKind.BOOKING_COMPLETED: frozenset({BookingStatus.COMPLETED}),
    NotificationKind.BOOKING_NO_SHOW: frozenset({BookingStatus.NO_SHOW}),
}
"""The states of a lesson in which a notification about it, however late, tells no lie."""

_TITLES = {
    NotificationKind.BOOKING_CONFIRMED: "Lesson confirmed",
    NotificationKind.BOOKING_CANCELLED: "Lesson cancelled",
    NotificationKind.BOOKING_EXPIRED: "Lesson was not confirmed in time",
    NotificationKind.BOOKING_COMPLETED: "Lesson completed",
}


@dataclass(frozen=True)
class Text:
    title: str
    body: str


def booking_text(
    kind: NotificationKind,
    *,
    reader: Side,
    absent: frozenset[Side],
    service_name: str,
    other_name: str,
) -> Text:
    """What one side of a lesson is told of it. ``absent`` matters for a no-show alone.

    No time is in it: the web site shows the lesson's beside it, in the zone that the reader
    has by then. Raises ``KeyError`` for a kind that is not about a lesson.
    """
    title = _missed(reader, absent) if kind is NotificationKind.BOOKING_NO_SHOW else _TITLES[kind]
    return Text(title=title, body=f"{service_name} with {other_name}")


def _missed(reader: Side, absent: frozenset[Side]) -> str:
    if absent == frozenset(Side):
        return "Nobody checked in to your lesson"
    if reader in absent:
        return "You did not check in to your lesson"
    return (
        "Your student did not come" if reader is Side.INSTRUCTOR else "Your instructor did not come"
    )
