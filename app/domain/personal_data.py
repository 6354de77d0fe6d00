"""What a mail server, a database or a careless error quotes of a person, and masked addresses."""

import re

LEFT_OUT = "(left out)"

# An address; the values of a unique key (PostgreSQL's DETAIL line).
# Tried at the beginning of a word alone: tried inside it too, a word of megabytes takes hours.
_SIGN = r"[^\s<>()\[\]\"',;:=]"
_QUOTED = re.compile(rf"(?<!{_SIGN}){_SIGN}+@{_SIGN}+|(?<=DETAIL:).*")


def leave_out(text: str) -> str:
    """``text`` without addresses and the values that a database quotes.

    A name in running text cannot be told from a word: whoever writes an error keeps it out.
    """
    return _QUOTED.sub(LEFT_OUT, text)


def masked(address: str) -> str:
    """``address`` with its domain and at most the first sign of the name before it."""
    name, at, domain = address.rpartition("@")
    return f"{name[:1] if len(name) > 1 else ''}***{at}{domain if at else ''}"
