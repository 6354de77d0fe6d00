"""Ports of 127.0.0.1 for servers that are stopped and started again."""

import random
import socket

HOST = "127.0.0.1"

# Below the range from which Linux takes the ports of outgoing connections
# (32768 and up). In that range a port is not safe while its server is down:
# a client that keeps dialling it can be given that very port as its own, is
# then connected to itself, and the server cannot bind its port again.
CANDIDATES = range(20_000, 32_000)


def free_port(preferred: int | None = None) -> int:
    """A port of 127.0.0.1 that nothing listens on: ``preferred`` if it is one.

    Where the answer is not what was preferred, the caller says so to the user.
    Nothing reserves the port: start the server soon.
    """
    if preferred and is_free(preferred):
        return preferred
    for port in random.sample(CANDIDATES, k=200):
        if is_free(port):
            return port
    raise OSError(f"no free port between {CANDIDATES.start} and {CANDIDATES.stop} on {HOST}")


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1 now."""
    with socket.socket() as probe:
        # As servers do: connections of an earlier one in TIME_WAIT do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            # bind alone succeeds beside another bound, not yet listening socket
            probe.listen()
        except OSError:
            return False
    return True
