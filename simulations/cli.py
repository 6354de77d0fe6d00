"""Which replay a command line asks for: this marketplace's, or any Celery app's."""

from __future__ import annotations

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
        from simulations.marketplace.command import main as replay
    try:
        return replay(given)
    except KeyboardInterrupt:
        return INTERRUPTED
