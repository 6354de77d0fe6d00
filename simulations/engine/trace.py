"""The trace: what happened, one JSON object a line, and its hash."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Callable, Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any, TextIO

Observer = Callable[[datetime, str, Mapping[str, Any]], None]
"""Told of each line: when, which event, and its fields."""

REMEMBERED = 2000
"""Last lines, for whoever has to explain what went wrong."""


class Trace:
    """Writes lines, hashes them, counts events, and tells observers."""

    def __init__(self, clock: Callable[[], datetime], into: TextIO | None = None) -> None:
        self._clock = clock
        self._into = into
        self._hash = sha256()
        self._observers: list[Observer] = []
        self._last: deque[str] = deque(maxlen=REMEMBERED)
        self._ended = False
        self.lines = 0
        self.counts: Counter[str] = Counter()

    def observe(self, observer: Observer) -> None:
        self._observers.append(observer)

    def end(self) -> None:
        """Add no more lines: what follows is the taking down of the replay."""
        self._ended = True

    def emit(self, event: str, /, **fields: Any) -> None:
        """Add a line at the present virtual instant."""
        if self._ended:
            return
        now = self._clock()
        line = json.dumps(
            {"t": now.isoformat(timespec="microseconds"), "event": event, **fields},
            separators=(",", ":"),
        )
        self._hash.update(line.encode())
        self._hash.update(b"\n")
        if self._into is not None:
            self._into.write(f"{line}\n")
        self._last.append(line)
        self.lines += 1
        self.counts[event] += 1
        for observer in self._observers:
            observer(now, event, fields)

    @property
    def hash(self) -> str:
        """SHA-256 over all lines so far, in hexadecimal."""
        return self._hash.hexdigest()

    def about(self, *ids: str, most: int = 20) -> list[str]:
        """The last lines that mention one of ``ids``."""
        return [line for line in self._last if any(each in line for each in ids)][-most:]
