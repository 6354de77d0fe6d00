"""Which command this process is, if it is one of ours: asked while it is still imported."""

import sys
from collections.abc import Sequence
from pathlib import Path

PROCESSES = frozenset({"worker", "beat"})
ASKING = frozenset({"call", "control", "inspect", "purge", "result", "status"})
"""Those that ask Redis or the workers, print what they were told, and end."""
FLOWER = "flower"
_KNOWN = PROCESSES | ASKING | {FLOWER}
_OURS = {f"app.tasks.{name}": name for name in PROCESSES}


def celery_command(words: Sequence[str] | None = None) -> str | None:
    """``worker`` of ``celery -A app.tasks worker``, and of ``python -m app.tasks.worker``.

    ``None`` where the process is none of the known commands. ``words`` are those of the
    interpreter's own command line, which is this process's where left out: ``sys.argv`` does
    not tell yet what ``-m`` runs while the package is imported.
    """
    words = sys.orig_argv[1:] if words is None else words
    for number, word in enumerate(words):
        if word in _OURS and words[number - 1] == "-m":
            return _OURS[word]
        if Path(word).name == "celery":
            return next((name for name in words[number + 1 :] if name in _KNOWN), None)
        if not word.startswith("-"):
            return None  # a script or module of somebody else's, and its arguments
    return None
