"""A web server for one small page that no client can hold up.

A metrics page is part of a worker: its connections are descriptors and threads of that
process. Both are bounded here, and so is the time that a client may take.
"""

import os
import socket
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from threading import BoundedSemaphore, Thread
from time import monotonic
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

MAX_CONNECTIONS = 32
"""At once. A further one takes the place of the slowest."""
REQUEST_SECONDS = 5.0
"""For a client to send its whole request."""
ANSWER_SECONDS = 5.0
"""For a client to receive the whole page, after it was made."""
PLACE_SECONDS = 1.0
"""For a dropped connection's thread to end."""

_CONNECTION = "page.connection"

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class _Connection:
    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.deadline: float | None = monotonic() + REQUEST_SECONDS
        """When the client is dropped; ``None`` while the page is made: that is our own time."""
        self.dropped = False

    def drop(self) -> None:
        self.dropped = True
        # Wakes the thread that reads or writes. A close would not.
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def leave_to_parent(self) -> None:
        """Close the descriptor of a forked child, and not the connection."""
        descriptor = self._socket.detach()
        if descriptor >= 0:
            os.close(descriptor)


class _Handler(WSGIRequestHandler):
    server: "PageServer"

    def get_environ(self) -> dict[str, Any]:
        connection = self.server.connection(self.request)
        return {**super().get_environ(), _CONNECTION: connection}

    def log_message(self, format: str, *args: Any) -> None:
        pass


class PageServer(WSGIServer):
    """Serves ``page`` on ``host`` and ``port``, from a thread, until it is closed."""

    request_queue_size = 128

    def __init__(self, host: str, port: int, page: Application) -> None:
        """Listen and serve. Raises ``OSError`` where the port cannot be had."""
        self.address_family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        self._places = BoundedSemaphore(MAX_CONNECTIONS)
        self._connections: dict[Any, _Connection] = {}
        super().__init__((host, port), _Handler)
        self._page = page
        self.set_app(self._timed_page)
        os.register_at_fork(after_in_child=self._leave_to_parent)
        Thread(target=self.serve_forever, name="page", daemon=True).start()

    def close(self) -> None:
        """Stop listening and drop all clients."""
        self.shutdown()
        self.server_close()
        for connection in self._open():
            connection.drop()

    def connection(self, request: Any) -> _Connection:
        return self._connections[request]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for a client. At the limit, drop the slowest client first."""
        if not self._places.acquire(blocking=False):
            self._drop_slowest()
            if not self._places.acquire(timeout=PLACE_SECONDS):
                self.shutdown_request(request)
                return
        self._connections[request] = _Connection(request)
        try:
            Thread(target=self._serve, args=(request, client_address), daemon=True).start()
        except RuntimeError:  # the machine has no thread for us
            self._end(request)

    def service_actions(self) -> None:
        """Drop the clients whose time is up. Runs at least twice a second."""
        now = monotonic()
        for deadline, connection in self._deadlines():
            if deadline < now:
                connection.drop()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a client that went away or was dropped."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def _serve(self, request: Any, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except Exception:
            self.handle_error(request, client_address)
        finally:
            self._end(request)

    def _end(self, request: Any) -> None:
        del self._connections[request]
        self.shutdown_request(request)
        self._places.release()

    def _timed_page(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        connection: _Connection = environ[_CONNECTION]
        if connection.dropped:
            raise ConnectionAbortedError  # the end of half a request looks like the whole
        connection.deadline = None
        try:
            return self._page(environ, start_response)
        finally:
            connection.deadline = monotonic() + ANSWER_SECONDS

    def _drop_slowest(self) -> None:
        deadlines = self._deadlines()
        if deadlines:
            min(deadlines, key=lambda each: each[0])[1].drop()

    def _deadlines(self) -> list[tuple[float, _Connection]]:
        # Each is read once: its own thread may take it away meanwhile.
        return [
            (deadline, connection)
            for connection in self._open()
            if (deadline := connection.deadline) is not None
        ]

    def _open(self) -> list[_Connection]:
        return list(self._connections.values())

    def _leave_to_parent(self) -> None:
        # A child that outlives its parent would hold the port, and the clients.
        self.socket.close()
        for connection in self._open():
            connection.leave_to_parent()
