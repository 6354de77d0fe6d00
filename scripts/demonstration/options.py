"""What is typed after ``scripts/demo``.

Needs nothing but Python, so that ``scripts/demo`` can refuse a mistyped word before anything is
installed.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from scripts.arguments import Parser, duration, new_file, number, path

DESCRIPTION = """\
Starts a Redis, an SQLite marketplace with people who book lessons, a worker, beat,
Flower and a mailbox, and prints what happens. Ctrl-C stops all of it."""


@dataclass(frozen=True)
class Options:
    seconds: float | None
    """How long the show lasts; ``None``: until Ctrl-C."""
    kill: bool
    """Whether workers, beat and Redis are killed while it lasts."""
    seed: int | None
    """Of the people's decisions; ``None``: drawn and printed."""
    json: Path | None
    """Where the figures of the summary go, beside the terminal."""
    folder: Path | None
    """Where data and logs go; ``None``: a new folder under var/demo."""


def parse(arguments: Sequence[str] | None = None) -> Options:
    """The options. ``SystemExit(2)`` after one line on stderr for what is wrong."""
    parser = Parser(
        prog="demo",
        usage="scripts/demo [--seconds N] [--kill] [--json FILE] [--seed N] [--folder DIR]",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--seconds",
        type=_seconds,
        metavar="N",
        help="stop after N seconds, or after 5m or 2h, with a summary; exit 0 only if it adds up",
    )
    parser.add_argument(
        "--kill",
        action="store_true",
        help="kill a worker every few seconds, beat now and then, and Redis once, which comes"
        " back empty",
    )
    parser.add_argument(
        "--json", type=new_file, metavar="FILE", help="write the summary's figures to FILE"
    )
    parser.add_argument(
        "--seed",
        type=number(),
        metavar="N",
        help="let people decide as in another run with this seed",
    )
    parser.add_argument(
        "--folder",
        type=_empty_folder,
        metavar="DIR",
        help="keep data and logs in this new or empty folder (default: var/demo/<time>)",
    )
    return Options(**vars(parser.parse_args(arguments)))


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = duration(text).total_seconds()
        except argparse.ArgumentTypeError:
            seconds = math.nan
    if not (0 < seconds < math.inf):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time to run: write 60 (seconds), 90s, 5m or 2h"
        )
    return seconds


def _empty_folder(text: str) -> Path:
    folder = path(text)
    if folder.exists() and not folder.is_dir():
        raise argparse.ArgumentTypeError(f"{folder} is a file: name a folder")
    if folder.is_dir() and any(folder.iterdir()):
        raise argparse.ArgumentTypeError(f"{folder} is not empty: name a new folder")
    nearest = next(each for each in (folder, *folder.parents) if each.exists())
    try:
        # Tried, for a superuser may write where nothing can be made; and nothing is left.
        with TemporaryDirectory(dir=nearest):
            pass
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{folder} cannot be made: {error.strerror}") from None
    return folder
