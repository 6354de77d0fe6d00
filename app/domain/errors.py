"""Kinds of failure, by what helps against them, and their texts on a terminal."""


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
