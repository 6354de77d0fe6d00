"""Which replay a command line asks for: this marketplace's, or any Celery app's."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

INTERRUPTED = 130
"""As a shell tells of a process that SIGINT ended."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done and all invariants hold, 1 one is broken, 2 bad arguments."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Imported only now: a foreign package may be called ``app`` as ours is.
    if any(word == "--app" or word.startswith("--app=") for word in given):
        from simulations.any_app.command import main as replay
    else:
        from app import closed_pipe
        from simulations.marketplace.command import main as replay_marketplace

        def replay(arguments: Sequence[str]) -> int:
            return closed_pipe.survive(lambda: replay_marketplace(arguments))

    try:
        status = replay(given)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Of a foreign app: only the table is cut off, the files were written before it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status
