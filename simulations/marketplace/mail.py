"""The mail provider of a replay: an SMTP server as ``app.adapters.mailer`` sees one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from app import db
from app.adapters.mailer import (
    MailFateUnknownError,
    MailRefusedError,
    MailServerUnavailableError,
    MailTemporarilyRefusedError,
)
from simulations.engine.loop import EventLoop
from simulations.engine.trace import Trace

_MESSAGE_ID = re.compile(rb"^Message-ID: <([^@>]+)@", re.MULTILINE)


class Mood(StrEnum):
    """How the server misbehaves."""

    DOWN = "down"
    SLOW = "slow"
    BUSY = "busy"
    """Half of the mails are refused for now (4xx)."""
    SILENT = "silent"
    """It accepts every second mail and hangs up before it has said so."""


@dataclass
class Latency:
    """Seconds of virtual time."""

    connect: float = 0.05
    mail: float = 0.03
    slow: float = 4.0


class MailProvider:
    """Accepts mails, and counts each Message-ID that it has accepted.

    Implements ``app.adapters.mailer.Mailer``.
    """

    def __init__(self, loop: EventLoop, trace: Trace, rng: Random) -> None:
        self.moods: Counter[Mood] = Counter()
        """How many faults put it into each; all of them have their effect."""
        self.accepted: Counter[str] = Counter()
        self._loop = loop
        self._trace = trace
        self._rng = rng
        self._latency = Latency()

    place = "the mail provider"

    def check(self) -> None:
        """Nothing has to be mended."""

    @contextmanager
    def open(self) -> Iterator[_Connection]:
        db.refuse_network_in_transaction()
        self._loop.sleep(self._latency.connect)
        if self.moods[Mood.DOWN]:
            raise MailServerUnavailableError("connection refused")
        yield _Connection(self)

    def take(self, message: bytes, recipient: str, proceed: Callable[[float], bool]) -> bool:
        """What one SMTP transaction comes to."""
        db.refuse_network_in_transaction()
        self._loop.sleep(self._latency.slow if self.moods[Mood.SLOW] else self._latency.mail)
        if self.moods[Mood.DOWN]:
            raise MailServerUnavailableError("connection reset")
        if self.moods[Mood.BUSY] and self._rng.random() < 0.5:
            raise MailTemporarilyRefusedError("SMTP 451 4.3.2 to RCPT")
        if recipient.startswith("gone"):
            raise MailRefusedError("SMTP 550 5.1.1 to RCPT")
        if not proceed(0.0):
            return False
        found = _MESSAGE_ID.search(message)
        key = found[1].decode() if found else "?"
        self.accepted[key] += 1
        self._trace.emit("mail", mail=key, copy=self.accepted[key])
        # Between the server's answer and our knowing of it, the worker can die.
        self._loop.sleep(self._latency.mail)
        if self.moods[Mood.SILENT] and self._rng.random() < 0.5:
            raise MailFateUnknownError("the connection broke after DATA")
        return True


class _Connection:
    def __init__(self, provider: MailProvider) -> None:
        self._provider = provider

    def send(
        self,
        write: Callable[[], bytes],
        *,
        sender: str,
        recipient: str,
        proceed: Callable[[float], bool],
    ) -> bool:
        return self._provider.take(write(), recipient, proceed)
