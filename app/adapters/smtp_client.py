"""The standard library's SMTP client, with bounds on time and memory that a server cannot stretch.

The library's timeout is one for each packet: a server that sends a byte every few seconds, or
lines without end, keeps it for ever. Here a whole reply has one deadline and one size, and what
is sent has the same deadline.
"""

import errno
import os
import smtplib
import socket
import ssl
from contextlib import suppress
from time import monotonic
from typing import Any

MAX_REPLY_BYTES = 65_536
"""Of all lines of a reply. RFC 5321 has 512 for each; an answer to EHLO has some thirty."""
CHUNK_BYTES = 4_096


class SmtpClient(smtplib.SMTP):
    """A connection in the clear, or one that STARTTLS makes private."""

    def __init__(self, host: str, port: int, *, within: float, **options: Any) -> None:
        """Connect and read the greeting, in at most ``within`` seconds."""
        self.patience: float = options["timeout"]
        """Seconds for each whole reply, and for each thing that is sent."""
        self.allow(within)
        super().__init__(host, port, **options)

    def allow(self, seconds: float) -> None:
        """Let all that follows take this long together."""
        self._ends = monotonic() + seconds

    def getreply(self) -> tuple[int, bytes]:
        """As the library's. Raises ``SMTPServerDisconnected`` for a slow or endless one."""
        if self.file is None:
            self.file = _Replies()
        if self.sock is not None:
            self.file.begin(self.sock, min(monotonic() + self.patience, self._ends))
        reply = super().getreply()
        # What the library does next, a TLS handshake say, has the whole time again.
        if self.sock is not None:
            with suppress(TimeoutError):
                self.sock.settimeout(_left(min(monotonic() + self.patience, self._ends)))
        return reply

    def send(self, s: Any) -> None:
        """As the library's. Raises ``OSError``."""
        if self.sock is not None:
            self.sock.settimeout(_left(min(monotonic() + self.patience, self._ends)))
        super().send(s)

    def hand_over(self, message: bytes) -> None:
        """Send a message with its final dot; an ``OSError`` leaves it certainly incomplete."""
        if self.sock is None:
            raise smtplib.SMTPServerDisconnected("please run connect() first")
        ends = min(monotonic() + self.patience, self._ends)
        rest = memoryview(message)
        while rest:
            self.sock.settimeout(_left(ends))
            rest = rest[self.sock.send(rest) :]

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        # The library gives each address of a host the whole timeout.
        ends = min(monotonic() + timeout, self._ends)
        error: OSError = OSError("the host has no address")
        for _, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            try:
                return super()._get_socket(address[0], port, _left(ends))  # type: ignore[misc, no-any-return]
            except ssl.SSLError:
                raise
            except OSError as failed:
                error = failed
        raise error


class TlsSmtpClient(SmtpClient, smtplib.SMTP_SSL):
    """A connection that is private from the first byte."""


class _Replies:
    """Lines of a socket, as many as fit into a reply's bounds."""

    def __init__(self) -> None:
        self._received = b""
        self._read = 0

    def begin(self, sock: socket.socket, ends: float) -> None:
        """Expect one reply, whole at the monotonic instant ``ends``."""
        self._socket = sock
        self._ends = ends
        self._read = len(self._received)

    def readline(self, limit: int) -> bytes:
        while (end := self._received.find(b"\n", 0, limit) + 1) == 0 and (
            len(self._received) < limit
        ):
            self._socket.settimeout(_left(self._ends))
            chunk = self._socket.recv(CHUNK_BYTES)
            if not chunk:
                end = len(self._received)
                break
            self._read += len(chunk)
            if self._read > MAX_REPLY_BYTES:
                raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
            self._received += chunk
        end = end or limit
        line, self._received = self._received[:end], self._received[end:]
        return line

    def close(self) -> None:
        self._received = b""


def _left(ends: float) -> float:
    """Seconds until ``ends``, for a socket. Raises ``TimeoutError``."""
    if (left := ends - monotonic()) <= 0:
        raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
    return left
