"""Ctrl-C, the polite way: the first is a wish, the second is an order."""

import signal
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruption:
    """A context in which Ctrl-C, SIGTERM and a closed terminal ask for the end.

    As long as it is ``patient``, the first only sets ``wished``, for who looks at it
    between two steps; any other raises ``KeyboardInterrupt`` at once.
    """

    def __init__(self) -> None:
        self.wished = False
        self.patient = False
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
        if not self.patient or self.wished:
            raise KeyboardInterrupt
        self.wished = True
