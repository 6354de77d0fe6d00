"""What notifications there are."""

from enum import StrEnum


class NotificationKind(StrEnum):
    BOOKING_CONFIRMED = "booking_confirmed"
    BOOKING_CANCELLED = "booking_cancelled"
    BOOKING_NO_SHOW = "booking_no_show"
    BOOKING_COMPLETED = "booking_completed"
    BOOKING_EXPIRED = "booking_expired"
    BROADCAST = "broadcast"
