"""Which tasks each act causes: the messages of a load test without a database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from app import routing
from app.models import NotificationKind
from app.services.analytics import GENERATE_DAILY
from app.services.bookings import SEND_CANCELLATION, SEND_CONFIRMATION
from app.services.notifications import NOTIFY_BOOKING
from app.services.password_resets import SEND_PASSWORD_RESET
from app.services.password_resets import URGENCY as OF_A_RESET

FLOODED_DAY = "2001-01-01"
"""The day that is counted again and again: nothing happened on it in any marketplace."""


@dataclass(frozen=True)
class Call:
    """A run of a task."""

    task: str
    args: tuple[Any, ...] = ()
    urgency: int | None = None
    """``None``: that of its queue."""

    @property
    def queue(self) -> str:
        return routing.queue_for(self.task).name

    @property
    def priority(self) -> int:
        """On the wire."""
        spec = routing.queue_for(self.task)
        return routing.wire_priority(spec.urgency if self.urgency is None else self.urgency)


# Booking and cancelling cause mails and notifications; the queue of the bookings has what
# settles lessons, here once for each.
COMPLETE_FINISHED = Call("app.tasks.bookings.complete_finished")
EXPIRE_PENDING = Call("app.tasks.bookings.expire_pending")
BOOKING = (
    COMPLETE_FINISHED,
    Call(SEND_CONFIRMATION, (0,)),
    Call(NOTIFY_BOOKING, (0, NotificationKind.BOOKING_CONFIRMED.value)),
)
CANCELLATION = (
    EXPIRE_PENDING,
    Call(SEND_CANCELLATION, (0,)),
    Call(NOTIFY_BOOKING, (0, NotificationKind.BOOKING_CANCELLED.value)),
)
PASSWORD_RESET = (Call(SEND_PASSWORD_RESET, (0,), urgency=OF_A_RESET),)
HEALTH_CHECK = (Call("app.tasks.health.health_check"),)
ANALYTICS = Call(GENERATE_DAILY, (FLOODED_DAY,))
CACHE = Call("app.tasks.cache.update_availability")
MAINTENANCE = Call("app.tasks.cleanup.delete_expired_sessions")
