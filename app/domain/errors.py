"""Kinds of failure, by what helps against them, and their texts on a terminal."""

from collections.abc import Collection
from difflib import get_close_matches

MOST_LISTED = 10
"""Known names that a message lists at most."""


class TransientError(Exception):
    """It may work in a while: retried with backoff."""


class PermanentError(Exception):
    """It will never work: a dead letter at once."""


def one_line(text: str) -> str:
    """The first line of ``text``, printable."""
    lines = text.strip().splitlines()
    return printable(lines[0]) if lines else ""


def printable(text: str) -> str:
    """``text`` with a sign in the place of each control character: an error may quote a peer."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)


def no_such(what: str, name: object, known: Collection[str]) -> str:
    """The message about a ``name`` that is not ``known``, with the nearest one that is.

    Where none is near, it lists the known names, up to ``MOST_LISTED``.
    """
    line = f"there is no {what} {name!r}"
    names = sorted(known)
    if similar := get_close_matches(str(name), names, n=1):
        return f"{line}: did you mean {similar[0]!r}?"
    return f"{line}: choose from {', '.join(names)}" if 0 < len(names) <= MOST_LISTED else line
