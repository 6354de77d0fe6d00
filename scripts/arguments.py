"""The command lines of scripts. Needs nothing but Python, so that a command can refuse a bad
argument before anything is installed.

``python -m scripts.NAME`` reads its arguments with ``command(NAME, __doc__)``, before it starts
anything.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from app import closed_pipe
from simulations.arguments import Parser, duration, number

__all__ = [
    "CALLED_FROM",
    "CANNOT",
    "HELP_WAS_SHOWN",
    "INTERRUPTED",
    "CannotGoOnError",
    "Parser",
    "check",
    "command",
    "duration",
    "new_file",
    "number",
    "path",
    "positive",
    "run_command",
]

CALLED_FROM = "CALLED_FROM"
"""Variable with the folder in which the user typed the command; the command runs elsewhere."""

HELP_WAS_SHOWN = 100
"""Exit status of ``check``: the arguments are right, but there is nothing to run."""

INTERRUPTED = 130
"""Exit status, as a shell reports SIGINT."""

CANNOT = 2
"""Exit status of a command that could not be run."""

positive = number(1)


class CannotGoOnError(Exception):
    """The command's result cannot be had; the message is one line."""


def command(name: str, doc: str | None) -> Parser:
    """The parser of ``python -m scripts.NAME``, described by the first line of its docstring."""
    return Parser(prog=f"python -m scripts.{name}", description=(doc or "").partition("\n")[0])


def check(parse: Callable[[], object]) -> None:
    """Return where ``parse`` returns; after --help raise ``SystemExit(HELP_WAS_SHOWN)``."""
    try:
        parse()
    except SystemExit as ended:
        raise SystemExit(ended.code or HELP_WAS_SHOWN) from None


def run_command(main: Callable[[], int]) -> int:
    """The exit status of ``main``; 2 after ``CannotGoOnError``, and 130 after Ctrl-C or SIGTERM,
    with one line on stderr. The context managers of ``main`` end what it started."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return closed_pipe.survive(main)
    except CannotGoOnError as error:
        print(error, file=sys.stderr)
        return CANNOT
    except KeyboardInterrupt:
        print("interrupted: nothing is kept of this run", file=sys.stderr)
        return INTERRUPTED


def path(text: str) -> Path:
    """A name, relative to the folder in which the user typed the command."""
    if not text:
        raise argparse.ArgumentTypeError("the name is empty")
    return Path(os.environ.get(CALLED_FROM, "")).absolute() / text


def new_file(text: str) -> Path:
    """A file that can be written when the command has ended."""
    file = path(text)
    if file.is_dir():
        raise argparse.ArgumentTypeError(f"{file} is a folder: name a file in it")
    if not file.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {file.parent}")
    if not os.access(file.parent, os.W_OK) or (file.exists() and not os.access(file, os.W_OK)):
        raise argparse.ArgumentTypeError(f"{file} cannot be written")
    return file
