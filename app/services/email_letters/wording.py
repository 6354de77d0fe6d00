"""How names, prices and times are put into words."""

import logging
import re
import unicodedata
from datetime import date, datetime
from zoneinfo import ZoneInfo

logger = logging.getLogger(__name__)

# They break a line, or (Cf) are invisible and reorder, hide or spell out text.
_UNSAFE_CATEGORIES = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_JOINERS = frozenset("\u200c\u200d")
"""Of category Cf, and part of the spelling of Persian words and of emoji."""
# Where a client's linkifier sees a host or a scheme: a dot (IDNA knows four) or a colon with a
# letter or a slash behind it, and two backslashes. "12:30", "2.0" and "Jr.," stay as they are.
_LINKED_AT = re.compile(
    r"[.\u3002\uff0e\uff61](?=[^\s\d!-/:-@\[-`{-~])|[:\uff1a](?=[^\W\d]|[/\\])|\\(?=\\)"
)


def one_line(text: str) -> str:
    """``text`` without line ends, control and format characters; runs of space become one."""
    if text.isprintable():  # none of those, as with nearly every name
        return " ".join(text.split())
    cleaned = "".join(
        " " if unicodedata.category(sign) in _UNSAFE_CATEGORIES and sign not in _JOINERS else sign
        for sign in text
    )
    return " ".join(cleaned.split())


def untrusted(text: str) -> str:
    """``one_line`` of what a person wrote, with nothing that mail clients turn into a link.

    ``evil.example/login`` becomes ``evil. example/login``, and ``St.John`` becomes ``St. John``.
    """
    return _LINKED_AT.sub(r"\g<0> ", one_line(text))


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
