"""What mails there are."""

from enum import StrEnum


class EmailKind(StrEnum):
    BOOKING_CONFIRMATION = "confirmation"
    BOOKING_CANCELLATION = "cancellation"
    REMINDER_24H = "reminder_24h"
    REMINDER_1H = "reminder_1h"
    NO_SHOW = "no_show"
    PASSWORD_RESET = "password_reset"  # noqa: S105 - a kind of mail
    DIGEST = "digest"
    WEEKLY_REPORT = "weekly_report"


LESSON_MAILS = frozenset(
    {
        EmailKind.BOOKING_CONFIRMATION,
        EmailKind.BOOKING_CANCELLATION,
        EmailKind.REMINDER_24H,
        EmailKind.REMINDER_1H,
        EmailKind.NO_SHOW,
    }
)
"""Those that are about one lesson: their subject is a booking."""
