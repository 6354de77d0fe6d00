"""Ctrl-C, the polite way: the first is a wish, the second is an order.

Imports little, so that a Ctrl-C in the first second finds it in place.
"""

import os
import signal
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


INTERRUPTED = 130
"""Exit status, as a shell reports SIGINT."""
TOLD = "demo: interrupted, nothing was counted\n"


def end_at_once() -> None:
    """Until something is started, end this process on the first signal: in one line, not in
    a traceback out of the middle of an import."""
    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def keep_exit_status() -> None:
    """Ignore signals from now on: while Python ends, one would end the process by itself."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _end(_number: int, _frame: FrameType | None) -> None:
    os.write(2, TOLD.encode())
    os._exit(INTERRUPTED)


class Interruption:
    """A context in which Ctrl-C, SIGTERM and a closed terminal ask for the end.

    As long as it is ``patient``, the first only sets ``wished``, which the show reads between
    two steps. The next one raises ``KeyboardInterrupt``, once: later ones must not interrupt
    what kills the processes.
    """

    def __init__(self) -> None:
        self.wished = False
        self.patient = False
        self._raised = False
        self._handlers_before: dict[int, Any] = {}

    def wish(self) -> None:
        """Ask for the end, as the first Ctrl-C does."""
        self.wished = True

    def __enter__(self) -> Self:
        for number in SIGNALS:
            # nohup's wish goes first; a shell's, that a command in the background be deaf
            # to SIGINT, does not: how else could one stop it cleanly?
            if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue
            self._handlers_before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._handlers_before.items():
            signal.signal(number, handler)

    def _hear(self, _number: int, _frame: FrameType | None) -> None:
        if self._raised:
            return
        if not self.patient or self.wished:
            self._raised = True
            raise KeyboardInterrupt
        self.wished = True
