"""Which command this process is, if it is one of ours: asked while it is still imported."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PROCESSES = frozenset({"worker", "beat"})
ASKING = frozenset({"call", "control", "inspect", "purge", "result", "status"})
"""Those that ask Redis or the workers, print what they were told, and end."""
WRITING = ASKING - {"purge", "result"}
"""Those that also need a Redis which takes writes. A purge makes room in one that is full."""
FLOWER = "flower"
_KNOWN = PROCESSES | ASKING | {FLOWER}
_OURS = {f"app.tasks.{name}": name for name in PROCESSES}
_ENDING = "cm"
"""Options of the interpreter after which the program begins."""
_WITH_VALUE = "WX"
_LONG_WITH_VALUE = "--check-hash-based-pycs"


@dataclass(frozen=True)
class Program:
    """What a command line of the interpreter runs."""

    name: str
    """A module after ``-m``, else a script; empty where neither is given."""
    options: Sequence[str]
    """The interpreter's own, such as ``-X`` and ``-W``, each with its value."""
    arguments: Sequence[str]
    """The program's."""
    is_module: bool


def program(words: Sequence[str] | None = None) -> Program:
    """Split a command line; ``words`` are those after the interpreter.

    They are this process's own where left out, from ``sys.orig_argv``: ``sys.argv`` lacks what
    ``-m`` names while the package is imported, and the interpreter's options for ever.
    """
    words = sys.orig_argv[1:] if words is None else words
    number = 0
    while number < len(words):
        word = words[number]
        if word == _LONG_WITH_VALUE:
            number += 1
        elif not word.startswith("-") or word == "-":
            return Program(word, words[:number], words[number + 1 :], is_module=False)
        elif not word.startswith("--"):
            # Short options may stand together, and before their value: -Im, -Wignore, -mcelery.
            at = next((at for at in range(1, len(word)) if word[at] in _ENDING + _WITH_VALUE), 0)
            value = [word[at + 1 :]] if word[at + 1 :] else []
            if at and word[at] in _ENDING:
                flags = [f"-{word[1:at]}"] if at > 1 else []
                name, *arguments = [*value, *words[number + 1 :]] or [""]
                is_module = word[at] == "m"
                return Program(
                    name if is_module else "", [*words[:number], *flags], arguments, is_module
                )
            if at and not value:
                number += 1
        number += 1
    return Program("", words, (), is_module=False)


def celery_command(words: Sequence[str] | None = None) -> str | None:
    """``worker`` of ``celery -A app.tasks worker``, and of ``python -m app.tasks.worker``.

    ``None`` where the process is not one of the known commands. ``words`` as for ``program``.
    """
    run = program(words)
    if run.is_module and run.name in _OURS:
        return _OURS[run.name]
    if Path(run.name).name == "celery":
        return next((word for word in run.arguments if word in _KNOWN), None)
    return None  # a script or module of somebody else's, and its arguments


def ends_in_one_line(words: Sequence[str] | None = None) -> bool:
    """Whether this process is a command, of ours or of Celery's, that a person typed.

    Such a command ends in one line and exit status 2, and not in a traceback. ``words`` as for
    ``program``.
    """
    run = program(words)
    return Path(run.name).name == "celery" or (run.is_module and run.name.startswith("app."))
