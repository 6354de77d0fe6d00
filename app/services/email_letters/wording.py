"""How names, prices and times are put into words."""

import logging
import unicodedata
from datetime import date, datetime
from zoneinfo import ZoneInfo

logger = logging.getLogger(__name__)

# They break a line, or turn round the text that follows them.
_UNSAFE_CATEGORIES = {"Cc", "Cs", "Zl", "Zp"}
_BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def one_line(text: str) -> str:
    """``text`` without line ends and other control characters; runs of space become one."""
    if text.isprintable():  # none of those, as with nearly every name
        return " ".join(text.split())
    cleaned = "".join(
        " " if unicodedata.category(sign) in _UNSAFE_CATEGORIES or sign in _BIDI_CONTROLS else sign
        for sign in text
    )
    return " ".join(cleaned.split())


def dollars(cents: int) -> str:
    return f"${cents // 100:,}.{cents % 100:02}"


def calendar_day(day: date) -> str:
    """Such as ``Monday, 2 March 2026``."""
    return f"{day:%A}, {day.day} {day:%B} {day.year}"


def local_time(instant: datetime, zone: ZoneInfo) -> str:
    """Such as ``Monday, 2 March 2026, 07:00 EST``."""
    local = instant.astimezone(zone)
    name = f"{local:%Z}"
    if name[:1] in {"+", "-"}:  # no abbreviation in use there, such as in São Paulo
        name = f"UTC{name}"
    return f"{calendar_day(local)}, {local:%H:%M} {name}"


def zone_of(name: str, *, reader_id: int) -> ZoneInfo:
    """The zone that the reader's times are shown in: UTC where there is none of this name."""
    try:
        return ZoneInfo(name)
    # Whatever the name is: not in the database (a KeyError), no possible path, a folder.
    except (LookupError, ValueError, OSError):
        logger.warning("user %s has no known time zone: UTC instead", reader_id)
        return ZoneInfo("UTC")
