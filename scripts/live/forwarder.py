"""A TCP forwarder to a server: what is connected through it can be cut off from that server."""

from __future__ import annotations

import socket
from contextlib import suppress
from threading import Lock, Thread
from types import TracebackType
from typing import Self

from scripts.live.ports import HOST, free_port

CHUNK = 65_536
"""Bytes."""


class Forwarder:
    """A context in which ``port`` of 127.0.0.1 leads to another port there, until it is cut."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.port = free_port()
        self._lock = Lock()
        self._listening: socket.socket | None = None
        self._peers: set[socket.socket] = set()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cut()

    def open(self) -> None:
        """Accept connections, also again after ``cut``."""
        self._listening = socket.create_server((HOST, self.port))
        Thread(target=self._accept, args=(self._listening,), daemon=True).start()

    def cut(self) -> None:
        """End every connection, and refuse new ones."""
        listening, self._listening = self._listening, None
        if listening is not None:
            with suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)  # else its accept() goes on
            listening.close()
        with self._lock:
            peers, self._peers = self._peers, set()
        for peer in peers:
            _end(peer)

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                near = listening.accept()[0]
                far = socket.create_connection((HOST, self._target))
            except OSError:
                return
            with self._lock:
                self._peers |= {near, far}
            for one, other in ((near, far), (far, near)):
                Thread(target=self._forward, args=(one, other), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK):
                sink.sendall(data)
        with self._lock:
            self._peers -= {source, sink}
        for peer in (source, sink):
            _end(peer)


def _end(peer: socket.socket) -> None:
    with suppress(OSError):
        peer.shutdown(socket.SHUT_RDWR)
    peer.close()
