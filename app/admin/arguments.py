"""Reading what an operator typed: what is wrong is one line."""

import argparse
import re
import sys
from datetime import date, timedelta
from typing import Any, NoReturn

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_LONGEST = timedelta(days=36_500)
_FIRST_DAY, _LAST_DAY = date(1970, 1, 1), date(2099, 12, 31)


class UsageError(Exception):
    """The command cannot be run as typed; the message is one line."""


class Parser(argparse.ArgumentParser):
    """Raises ``UsageError`` instead of printing a page; takes no abbreviated options."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message} (--help says what there is)")


def duration(typed: str) -> timedelta:
    """A number and a unit: 30s, 5m, 2h or 30d."""
    match = re.fullmatch(r"([0-9]{1,12})([smhd])", typed)
    if match is None:
        raise argparse.ArgumentTypeError(f"{typed!r} is not a duration: write 30s, 5m, 2h or 30d")
    number, unit = int(match[1]), timedelta(**{_UNITS[match[2]]: 1})
    if number > _LONGEST // unit:
        raise argparse.ArgumentTypeError(f"{typed!r} is longer than {_LONGEST.days}d")
    return number * unit


def day(typed: str) -> date:
    """A date of this century or so: 2026-11-01."""
    try:
        if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", typed):
            raise ValueError
        meant = date.fromisoformat(typed)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{typed!r} is not a date: write 2026-11-01") from None
    if not _FIRST_DAY <= meant <= _LAST_DAY:
        raise argparse.ArgumentTypeError(f"{typed} is not between {_FIRST_DAY} and {_LAST_DAY}")
    return meant


def add_json(parser: argparse.ArgumentParser) -> None:
    """The option of every command that also speaks to machines."""
    parser.add_argument("--json", action="store_true", help="print JSON, for machines")


def add_yes(parser: argparse.ArgumentParser) -> None:
    """The option of every command that asks for confirmation."""
    parser.add_argument("--yes", action="store_true", help="do not ask for confirmation")


def confirm(question: str, *, yes: bool) -> None:
    """Return if ``yes`` is set or the user answers y or yes at the terminal.

    ``question`` names the number of rows that change and ends with a question mark. It goes to
    stderr, so that the output of ``--json`` stays JSON. Raises ``UsageError`` (exit status 2)
    for any other answer, and where standard input is not a terminal.
    """
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError(f"{question} Add --yes to do it without a terminal")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    try:
        answer = sys.stdin.readline()
    except KeyboardInterrupt:
        answer = ""
    if not answer.endswith("\n"):
        print(file=sys.stderr)  # Ctrl-C or Ctrl-D left the cursor behind the question.
    if answer.strip().lower() not in {"y", "yes"}:
        raise UsageError("not confirmed: nothing was changed")
