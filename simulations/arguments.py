"""What the command lines of replays and scripts share. Needs nothing but Python."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NoReturn, TextIO

DONE, BROKEN, BAD_ARGUMENTS = 0, 1, 2
PROGRAM = "python simulations/day.py"


_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_LONGEST = timedelta(days=36_500)
_FIRST_DAY, _LAST_DAY = date(1970, 1, 1), date(2099, 12, 31)


class Parser(argparse.ArgumentParser):
    """Ends after one line on stderr about a bad argument; takes no abbreviated options."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        """Print one line and raise ``SystemExit(2)``."""
        told = " ".join(message.split())
        self.exit(BAD_ARGUMENTS, f"{self.prog}: {told} (--help lists the arguments)\n")


def duration(text: str) -> timedelta:
    """Read a number and a unit: 30s, 5m, 2h or 30d. ``app.admin`` reads the same forms."""
    match = re.fullmatch(r"([0-9]{1,12})([smhd])", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration: write 30s, 5m, 2h or 30d")
    count, unit = int(match[1]), timedelta(**{_UNITS[match[2]]: 1})
    if count > _LONGEST // unit:
        raise argparse.ArgumentTypeError(f"{text!r} is longer than {_LONGEST.days}d")
    return count * unit


def a_date(text: str) -> date:
    """Read a date of this century or so: 2026-11-01. ``app.admin`` reads the same form."""
    try:
        if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            raise ValueError
        found = date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date: write 2026-11-01") from None
    if not _FIRST_DAY <= found <= _LAST_DAY:
        raise argparse.ArgumentTypeError(f"{text} is not between {_FIRST_DAY} and {_LAST_DAY}")
    return found


def number(least: int | None = None, most: int | None = None) -> Callable[[str], int]:
    """Read a whole number that is not below ``least`` and not above ``most``."""
    bounds = {
        (False, False): "",
        (True, False): f" from {least} on",
        (False, True): f" up to {most}",
        (True, True): f" from {least} to {most}",
    }[least is not None, most is not None]

    def read(text: str) -> int:
        try:
            found = int(text)
            if (least is not None and found < least) or (most is not None and found > most):
                raise ValueError
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number{bounds}") from None
        return found

    return read


def add_any_app(add: Callable[..., Any], *, required: bool) -> None:
    """The options that only a replay of another Celery app takes."""
    add("--app", required=required, metavar="MODULE:APP", help="as celery -A takes it")
    add("--service-times", type=Path, metavar="FILE", help="TOML: how long each task takes")


def check_files(**paths: Path | None) -> None:
    """Raise ``ValueError`` for a file that could not be written at the end."""
    for option, path in paths.items():
        if path is not None and (not path.parent.is_dir() or path.is_dir()):
            raise ValueError(f"--{option} {path}: name a file in a folder that exists")
        if path is not None and not os.access(path.parent, os.W_OK):
            raise ValueError(f"--{option} {path}: the folder cannot be written to")


@contextmanager
def written_when_complete(path: Path | None) -> Iterator[TextIO | None]:
    """A text file that is there once the block has ended well, and not at all otherwise."""
    if path is None:
        yield None
        return
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("w", encoding="utf-8") as into:
            yield into
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_json(path: Path | None, figures: Mapping[str, Any]) -> None:
    """Write what ``--json`` asks for, whole or not at all; nothing where it asks for nothing."""
    with written_when_complete(path) as into:
        if into is not None:
            json.dump(figures, into, indent=2)
            into.write("\n")
