"""What is typed after ``scripts/demo``.

Needs nothing but Python, so that ``python -m scripts.demonstration.options ARGUMENT...``
can refuse a mistyped word before anything is installed.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

CALLED_FROM = "DEMO_CALLED_FROM"
"""Variable with the folder in which the user typed the command; the demo runs elsewhere."""

HELP_WAS_SHOWN = 100
"""Exit status of the check: right, but there is nothing to start."""

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


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (scripts/demo --help says what there is)\n")


def parse(arguments: Sequence[str]) -> Options:
    """The options. ``SystemExit(2)`` after one line on stderr for what is wrong."""
    parser = _OneLineParser(
        prog="demo",
        usage="scripts/demo [--seconds N] [--kill] [--json FILE] [--seed N] [--folder DIR]",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--seconds",
        type=_seconds,
        metavar="N",
        help="stop after N seconds, with a summary; exit 0 only if it adds up",
    )
    parser.add_argument(
        "--kill",
        action="store_true",
        help="kill a worker every few seconds, beat now and then, and Redis once, which comes"
        " back empty",
    )
    parser.add_argument(
        "--json", type=_new_file, metavar="FILE", help="write the summary's figures to FILE"
    )
    parser.add_argument(
        "--seed", type=int, metavar="N", help="let people decide as in another run with this seed"
    )
    parser.add_argument(
        "--folder",
        type=_empty_folder,
        metavar="DIR",
        help="keep data and logs in this new or empty folder (default: var/demo/<time>)",
    )
    return Options(**vars(parser.parse_args(arguments)))


def check(arguments: Sequence[str]) -> None:
    """Return where ``parse`` would; after --help ``SystemExit(HELP_WAS_SHOWN)``."""
    try:
        parse(arguments)
    except SystemExit as ended:
        raise SystemExit(ended.code or HELP_WAS_SHOWN) from None


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (0 < seconds < math.inf):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds, such as 60")
    return seconds


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("the name is empty")
    return Path(os.environ.get(CALLED_FROM, "")).absolute() / text


def _new_file(text: str) -> Path:
    path = _path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a folder: name a file in it")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise argparse.ArgumentTypeError(f"{path} cannot be written")
    return path


def _empty_folder(text: str) -> Path:
    path = _path(text)
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a file: name a folder")
    if path.is_dir() and any(path.iterdir()):
        raise argparse.ArgumentTypeError(f"{path} is not empty: name a new folder")
    nearest = next(folder for folder in (path, *path.parents) if folder.exists())
    try:
        # Tried, for a superuser may write where nothing can be made; and nothing is left.
        with TemporaryDirectory(dir=nearest):
            pass
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{path} cannot be made: {error.strerror}") from None
    return path


if __name__ == "__main__":
    check(sys.argv[1:])
