"""What the command lines of replays share."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any, NoReturn, TextIO

DONE, BROKEN, BAD_ARGUMENTS = 0, 1, 2
PROGRAM = "python simulations/day.py"


class Parser(argparse.ArgumentParser):
    """Its last line says what is wrong and what would be right."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(BAD_ARGUMENTS, f"day.py: {message}\n")


def a_date(text: str) -> date:
    """Read a day in ISO 8601."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no date: write 2026-11-01") from None


def number(least: int, most: int) -> Callable[[str], int]:
    """Read a whole number between two others."""

    def read(text: str) -> int:
        try:
            found = int(text)
        except ValueError:
            found = least - 1
        if not least <= found <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is no number from {least} to {most}")
        return found

    return read


def check_files(**paths: Path | None) -> None:
    """Raise ``ValueError`` for a file that could not be written at the end."""
    for option, path in paths.items():
        if path is not None and (not path.parent.is_dir() or path.is_dir()):
            raise ValueError(f"--{option} {path}: name a file in a folder that exists")


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
