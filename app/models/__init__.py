"""The marketplace's tables, and those that carry its work."""

from app.domain.availability import AvailabilityChange
from app.domain.bookings import BookingStatus
from app.domain.email_kinds import EmailKind
from app.domain.notification_kinds import NotificationKind
from app.models.access import PasswordReset, UserSession
from app.models.availability import (
    AvailabilityException,
    AvailabilityWindow,
    StaleAvailability,
)
from app.models.base import Base
from app.models.beat_entry import BEAT_DEFINITIONS, BEAT_ENTRIES, BeatDefinition, BeatEntry
from app.models.booking import BOOKINGS, Booking
from app.models.email_message import EMAIL_MESSAGES, EmailMessage, EmailState
from app.models.metrics import BookingFigures, DailyMetrics, InstructorMetrics, ServiceMetrics
from app.models.notification import Broadcast, Notification
from app.models.outbox_entry import OUTBOX_ENTRIES, OutboxEntry, OutboxState
from app.models.paused_queue import PausedQueue
from app.models.service import SERVICES, Service
from app.models.user import USERS, Role, User

__all__ = [
    "BEAT_DEFINITIONS",
    "BEAT_ENTRIES",
    "BOOKINGS",
    "EMAIL_MESSAGES",
    "OUTBOX_ENTRIES",
    "SERVICES",
    "USERS",
    "AvailabilityChange",
    "AvailabilityException",
    "AvailabilityWindow",
    "Base",
    "BeatDefinition",
    "BeatEntry",
    "Booking",
    "BookingFigures",
    "BookingStatus",
    "Broadcast",
    "DailyMetrics",
    "EmailKind",
    "EmailMessage",
    "EmailState",
    "InstructorMetrics",
    "Notification",
    "NotificationKind",
    "OutboxEntry",
    "OutboxState",
    "PasswordReset",
    "PausedQueue",
    "Role",
    "Service",
    "ServiceMetrics",
    "StaleAvailability",
    "User",
    "UserSession",
]
