"""An SMTP server that takes mails as fast as it can and remembers only their Message-IDs.

``python -m scripts.benchmarks.smtp_sink`` prints ``smtp PORT asked PORT``; whoever connects to
the second port gets what has arrived, as a line of JSON. The mail catcher of the tests keeps
each mail as a file and would be what a benchmark measures.

It speaks RFC 5321, answers each command when it has come whole, and takes several at once
(RFC 2920), as most mail servers do. A mail counts when its last line has, as the client hears
in the 250 that follows.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.live.ports import HOST
from scripts.live.processes import Process

END = b"\r\n.\r\n"
_MESSAGE_ID = re.compile(rb"^message-id:\s*(\S+)", re.IGNORECASE | re.MULTILINE)
POLL_SECONDS = 0.02


@dataclass
class Arrived:
    """What the server has accepted."""

    ids: Counter[bytes] = field(default_factory=Counter)
    connections: int = 0
    last_at: float = 0.0
    """Unix seconds of the latest mail."""

    def as_json(self) -> dict[str, Any]:
        accepted = sum(self.ids.values())
        return {
            "accepted": accepted,
            "distinct": len(self.ids),
            "doubled": accepted - len(self.ids),
            "connections": self.connections,
            "last_at": self.last_at,
        }


class SmtpProtocol(asyncio.Protocol):
    """One client."""

    def __init__(self, arrived: Arrived) -> None:
        self._arrived = arrived
        self._buffer = b""
        self._in_message = False
        self._replies: list[bytes] = []
        self._has_said_bye = False
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._arrived.connections += 1
        self._transport.write(b"220 sink\r\n")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while self._step():
            pass
        # Together, as a server should that takes several commands at once (RFC 2920, 3.2).
        self._transport.write(b"".join(self._replies))
        self._replies.clear()
        if self._has_said_bye:
            self._transport.close()

    def _step(self) -> bool:
        """Whether something whole was in the buffer and has been dealt with."""
        if self._in_message:
            message, end, rest = self._buffer.partition(END)
            if not end:
                return False
            self._buffer = rest
            self._in_message = False
            found = _MESSAGE_ID.search(message)
            self._arrived.ids[found[1] if found else message] += 1
            self._arrived.last_at = time.time()
            self._say(b"250 taken")
            return True
        line, end, rest = self._buffer.partition(b"\r\n")
        if not end:
            return False
        self._buffer = rest
        word = line[:4].upper()
        if word == b"DATA":
            self._in_message = True
            # What follows at once may end in a dot on the very first line.
            self._say(b"354 go ahead")
        elif word == b"QUIT":
            self._say(b"221 bye")
            self._has_said_bye = True
            return False
        else:
            if word == b"EHLO":
                self._say(b"250-sink\r\n250 PIPELINING")
            else:
                self._say(b"250 sink" if word in _KNOWN else b"500 what?")
        return True

    def _say(self, line: bytes) -> None:
        self._replies.append(line + b"\r\n")


_KNOWN = frozenset({b"HELO", b"MAIL", b"RCPT", b"RSET", b"NOOP"})


async def serve() -> None:
    """Listen on two free ports of 127.0.0.1 until killed."""
    arrived = Arrived()
    loop = asyncio.get_running_loop()
    smtp = await loop.create_server(lambda: SmtpProtocol(arrived), HOST, 0, backlog=1024)

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(json.dumps(arrived.as_json()).encode() + b"\n")
        await writer.drain()
        writer.close()

    asked = await asyncio.start_server(answer, HOST, 0)
    ports = [server.sockets[0].getsockname()[1] for server in (smtp, asked)]
    print(f"smtp {ports[0]} asked {ports[1]}", flush=True)
    await asyncio.Event().wait()


class Sink:
    """A running sink, as the benchmark sees it."""

    def __init__(self, process: Process, *, port: int, asked_port: int) -> None:
        self.process = process
        self.port = port
        self._asked_port = asked_port

    def arrived(self) -> dict[str, Any]:
        """What it has accepted: ``accepted``, ``distinct``, ``doubled``, ``connections``,
        ``last_at``."""
        with socket.create_connection((HOST, self._asked_port), timeout=10) as asking:
            said = asking.makefile().readline()
        answer: dict[str, Any] = json.loads(said)
        return answer

    def wait_for(self, count: int, *, timeout: float) -> dict[str, Any]:
        """As ``arrived``, as soon as it has ``count`` mails; TimeoutError says how many came."""
        until = time.monotonic() + timeout
        while (seen := self.arrived())["accepted"] < count:
            if time.monotonic() > until:
                raise TimeoutError(f"{seen['accepted']} of {count} mails in {timeout:g} s")
            time.sleep(POLL_SECONDS)
        return seen


@contextmanager
def running_sink(folder: Path) -> Iterator[Sink]:
    """A new sink, empty; stopped at the end."""
    process = Process(
        [sys.executable, "-m", "scripts.benchmarks.smtp_sink"],
        log=folder / "sink.out",
        cwd=Path(__file__).resolve().parents[2],
        name="smtp sink",
    )
    process.start()
    try:
        ports = process.wait_for_line(r"smtp (\d+) asked (\d+)")
        yield Sink(process, port=int(ports[1]), asked_port=int(ports[2]))
    finally:
        process.kill()


if __name__ == "__main__":
    asyncio.run(serve())
