"""What the audience reads: plain lines, as things happen."""

import os
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from scripts.demonstration.status import Status


class Voice:
    """Prints lines with the seconds since the show began, if it has.

    Where nobody reads any more (``scripts/demo | head``) it falls silent and calls
    ``on_silence``.
    """

    status_every = 10.0
    """Seconds between two looks at the figures."""

    def __init__(self, on_silence: Callable[[], None]) -> None:
        self._on_silence = on_silence
        self._began: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Lines leave nothing behind."""

    def begin(self) -> None:
        """From now on each line has its time."""
        self._began = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since the show began."""
        return 0.0 if self._began is None else time.monotonic() - self._began

    def say(self, what: str, text: str) -> None:
        """One line: a word that says what happened, and the rest."""
        self.show(self.line(what, text))

    def line(self, what: str, text: str) -> str:
        """What ``say`` says."""
        when = "" if self._began is None else f"{self.elapsed:.1f} s"
        return f"{when:>8}  {what:<10} {text}"

    def status(self, status: Status) -> None:
        """How far the marketplace has come."""
        self.say(
            "so far",
            f"{status.bookings['confirmed']} lessons confirmed, {status.mails} mails; outbox:"
            f" {status.outbox['done']} done, {status.outbox['pending']} open",
        )

    def end(self) -> None:
        """No figures will come any more."""

    def show(self, text: str) -> None:
        """Text as it is."""
        try:
            print(text, flush=True)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            self._on_silence()
