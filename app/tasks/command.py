"""Becoming the celery command, and becoming this command again."""

import os
import sys
from typing import NoReturn

from app.tasks import interrupts
from app.tasks.command_line import program


def become(command: str) -> NoReturn:
    """Replace this process by ``celery -A app.tasks <command>`` and its own arguments.

    A new process image, because gevent and eventlet must patch before anything is
    imported: calling Celery's ``worker_main`` from here would be too late for them. The
    interpreter's own options, such as ``-X`` and ``-W``, are kept.
    """
    options = sys.argv[1:]
    if not any(option.startswith(("-l", "--loglevel")) for option in options):
        options = ["--loglevel=info", *options]
    _execute([*program().options, "-m", "celery", "-A", "app.tasks", command, *options])


def restart() -> NoReturn:
    """Replace this process by a new one of the same command line, with the same pid.

    Celery builds the command line from ``sys.argv``, which lacks ``-m`` and the interpreter's
    options: ``python -m celery`` would be run as a script, and end with an ImportError.
    """
    _execute(sys.orig_argv[1:])


def _execute(arguments: list[str]) -> NoReturn:
    interrupts.hold_back()
    os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606 - no shell is wanted
