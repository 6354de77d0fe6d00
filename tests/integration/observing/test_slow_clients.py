"""A metrics page while clients hold a thousand connections to it."""

import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from time import monotonic, sleep

import pytest

from app.tasks.page_server import MAX_CONNECTIONS
from scripts.live.job_bench import JobBench
from scripts.live.ports import HOST
from scripts.live.processes import Process
from tests.integration.observing.watching import ANSWER, Watched

CLIENTS = 1_000
DESCRIPTORS = 1_024
"""What a service manager and most shells allow a process."""

BEGINNINGS = {
    "silent": b"",
    "half a request": b"GET /metrics HTTP/1.1\r\nHost: me\r\n",
    "an answer nobody reads": b"GET /metrics HTTP/1.1\r\nHost: me\r\n\r\n",
}


@contextmanager
def slow_clients(port: int, beginning: bytes, *, number: int = CLIENTS) -> Iterator[None]:
    """So many connections at once. Each adds a byte every second, and is never closed by us."""
    over = Event()
    with ExitStack() as stack:
        clients = []
        for _ in range(number):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            client.settimeout(ANSWER)
            client.connect((HOST, port))
            with suppress(OSError):
                client.sendall(beginning)
            clients.append(client)

        def drip() -> None:
            while not over.wait(1):
                for each in clients:
                    with suppress(OSError):
                        each.send(b"x")

        dripping = Thread(target=drip)
        dripping.start()
        try:
            yield
        finally:
            over.set()
            dripping.join()


def descriptors(process: Process) -> int:
    return len(list(Path(f"/proc/{process.pid}/fd").iterdir()))


def threads(process: Process) -> int:
    return len(list(Path(f"/proc/{process.pid}/task").iterdir()))


def restrict(process: Process) -> None:
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))


def check_page(watched: Watched, process: Process, port: int, beginning: bytes) -> None:
    watched.page(port)
    open_before, threads_before = descriptors(process), threads(process)
    with slow_clients(port, beginning):
        started = monotonic()
        assert "process_open_fds" in watched.page(port)
        assert monotonic() - started < 5
        assert descriptors(process) <= open_before + MAX_CONNECTIONS + 20
        assert threads(process) <= threads_before + MAX_CONNECTIONS + 20


@pytest.mark.timeout(120)
@pytest.mark.parametrize("beginning", BEGINNINGS.values(), ids=BEGINNINGS)
def test_a_worker_forks_and_answers_while_slow_clients_hold_its_page(
    watched: Watched, bench: JobBench, beginning: bytes
) -> None:
    worker = watched.start_worker("--max-tasks-per-child=1", concurrency=1)
    restrict(worker)
    check_page(watched, worker, watched.port, beginning)
    with slow_clients(watched.port, beginning):
        for each in "abc":
            bench.enqueue("effect", each)
        bench.wait_for_effects(3, timeout=ANSWER)
        watched.wait_for_runs({("effect", "succeeded"): 3})
    assert worker.alive
    assert "Traceback" not in worker.log_text()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("pool", ["threads", "solo", "gevent", "eventlet"])
def test_a_page_answers_in_each_pool_while_slow_clients_hold_it(
    watched: Watched, bench: JobBench, pool: str
) -> None:
    worker = watched.start_worker(pool=pool)
    restrict(worker)
    check_page(watched, worker, watched.port, BEGINNINGS["half a request"])
    bench.enqueue("effect", "a")
    bench.wait_for_effects(1, timeout=ANSWER)
    assert "Traceback" not in worker.log_text()


@pytest.mark.timeout(180)
def test_beats_page_answers_while_slow_clients_hold_it(watched: Watched, bench: JobBench) -> None:
    beat = watched.start_beat()
    restrict(beat)
    check_page(watched, beat, watched.beat_port, BEGINNINGS["half a request"])
    assert "Traceback" not in beat.log_text()


@pytest.mark.timeout(120)
def test_an_idle_client_is_dropped_in_time_and_by_forked_children_too(
    watched: Watched, bench: JobBench
) -> None:
    watched.start_worker("--max-tasks-per-child=1", concurrency=1)
    with socket.create_connection((HOST, watched.port), timeout=ANSWER) as idle:
        sleep(0.5)
        bench.enqueue("effect", "a")
        bench.wait_for_effects(1, timeout=ANSWER)
        started = monotonic()
        assert idle.recv(1) == b""
        assert monotonic() - started < 10
        bench.wait_until(lambda: _holders(idle) == 0, timeout=5)


def _holders(client: socket.socket) -> int:
    """How many sockets on this machine still belong to the server's end of the connection."""
    port = f"{client.getsockname()[1]:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    # Without an owner (inode 0) the kernel alone finishes the connection.
    return sum(row[2].endswith(f":{port}") and row[9] != "0" for row in rows)
