"""Becoming the celery command."""

import os
import sys
from typing import NoReturn

from app.tasks import interrupts


def become(command: str) -> NoReturn:
    """Replace this process by ``celery -A app.tasks <command>`` and its own arguments.

    A new process image, because gevent and eventlet must patch before anything is
    imported: calling Celery's ``worker_main`` from here would be too late for them.
    """
    options = sys.argv[1:]
    if not any(option.startswith(("-l", "--loglevel")) for option in options):
        options = ["--loglevel=info", *options]
    arguments = [sys.executable, "-m", "celery", "-A", "app.tasks", command, *options]
    interrupts.hold_back()
    os.execv(sys.executable, arguments)  # noqa: S606 - no shell is wanted
