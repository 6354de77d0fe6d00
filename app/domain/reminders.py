"""When a confirmed lesson's reminders are due.

Each reminder has a window, from its lead before the start to the next one's. The windows
do not overlap, so that after an outage nobody gets the 24 h reminder together with the
1 h one, or either of them when the lesson has begun.
"""

from datetime import datetime, timedelta

from app.domain.email_kinds import EmailKind

LEADS = {
    EmailKind.REMINDER_24H: timedelta(hours=24),
    EmailKind.REMINDER_1H: timedelta(hours=1),
}
"""How long before the start each reminder falls due; the longest first."""


def window(kind: EmailKind) -> tuple[timedelta, timedelta]:
    """The window of a reminder, as times before the start: from the first (inclusive) until
    the second (exclusive)."""
    later = [lead for lead in LEADS.values() if lead < LEADS[kind]]
    return LEADS[kind], max(later, default=timedelta(0))


def is_open(kind: EmailKind, *, starts_at: datetime, now: datetime) -> bool:
    """Whether ``now`` lies in the window of the reminder."""
    opens, closes = window(kind)
    return starts_at - opens <= now < starts_at - closes


def due_kind(
    starts_at: datetime, *, confirmed_at: datetime | None, now: datetime
) -> EmailKind | None:
    """The reminder that a confirmed lesson's two sides are to get now, if any.

    None where the lesson was confirmed in this very window: the confirmation has just
    told them. ``None`` as ``confirmed_at`` means not confirmed.
    """
    for kind in LEADS:
        if is_open(kind, starts_at=starts_at, now=now):
            told = confirmed_at is None or confirmed_at > starts_at - LEADS[kind]
            return None if told else kind
    return None
