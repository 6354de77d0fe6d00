"""Ports that can be listened on."""

import socket

from scripts.live.ports import CANDIDATES, HOST, free_port


def test_the_preferred_port_is_taken_where_it_is_free() -> None:
    port = free_port()
    assert free_port(port) == port


def test_another_port_is_found_where_the_preferred_one_is_in_use() -> None:
    with socket.create_server((HOST, 0)) as server:
        used = server.getsockname()[1]
        other = free_port(used)
    assert other != used
    assert other in CANDIDATES


def test_a_port_used_on_all_interfaces_is_in_use() -> None:
    with socket.create_server(("", 0)) as server:
        used = server.getsockname()[1]
        assert free_port(used) != used


def test_a_port_that_was_just_closed_is_free() -> None:
    with socket.create_server((HOST, free_port())) as server:
        port = server.getsockname()[1]
        with socket.create_connection((HOST, port)):
            server.accept()[0].close()  # who closes first keeps the port in TIME_WAIT
    assert free_port(port) == port
