"""Commands whose reader may leave before the end, as in ``app.tasks.health | head -3``."""

import os
import sys
from collections.abc import Callable
from typing import Any


class _Stream:
    """A standard stream that drops what nobody reads any more."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._try(self._stream.write, text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        self._try(self._stream.writelines, lines)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, act: Callable[..., object], *arguments: Any) -> None:
        try:
            act(*arguments)
        except BrokenPipeError:
            # What is still in the buffer, and all that follows, goes nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


def survive(main: Callable[[], int]) -> int:
    """Run a command to its end and return its exit status, whether or not its output is read.

    Stopping at the first unread line would leave half of the work undone. It would also lose
    the exit status for which a script called the command.
    """
    sys.stdout, sys.stderr = _Stream(sys.stdout), _Stream(sys.stderr)
    return main()
