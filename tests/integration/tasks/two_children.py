"""A pool of two children, of which the busy one dies while the pool looks at the other's death.

``python -m tests.integration.tasks.two_children FILE stock|ours sleep|return`` prints how many
jobs the pool would start again, and whether the job ended, and how. A process of its own: the
pool leaves sockets and an event loop behind.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery.concurrency.asynpool import AsynPool
from kombu.asynchronous import Hub, set_event_loop

from app.tasks.dead_children import read_what_the_dead_reported

PATIENCE = 20.0
"""Seconds for a child to start or to die."""


def start_and_sleep(starts: str) -> None:
    Path(starts).write_text("started")
    time.sleep(600)


def start_and_return(starts: str) -> None:
    Path(starts).write_text("started")


BODIES = {"sleep": start_and_sleep, "return": start_and_return}


def main(starts: Path, celery: str, body: str) -> None:
    hub = Hub()
    set_event_loop(hub)  # type: ignore[no-untyped-call]
    pool: Any = AsynPool(2, threads=False, sched_strategy="fair")  # type: ignore[call-arg]
    pool.register_with_event_loop(hub)
    if celery == "ours":
        read_what_the_dead_reported(pool)
    hub.call_repeatedly(0.01, lambda: None)
    loop = hub.create_loop()
    _wait(lambda: len(pool._fileno_to_inq) == 2, lambda: next(loop))

    for process in pool._pool:
        hub.remove(process.outqR_fd)  # what a child reports stays in its pipe
    job = pool.apply_async(BODIES[body], (str(starts),))
    _wait(starts.exists, lambda: next(loop))
    busy = job._write_to
    idle = next(process for process in pool._pool if process is not busy)
    pool._pool[:] = [idle, busy]  # the pool begins at the end
    _kill(idle)
    flush = pool.process_flush_queues

    def flush_and_kill(process: Any) -> None:
        flush(process)
        if process is idle:
            time.sleep(0.5)  # the report of the busy child gets into the pipe
            _kill(busy)

    pool.process_flush_queues = flush_and_kill
    pool._join_exited_workers()
    again = len(pool.outbound_buffer)
    pool._join_exited_workers()
    ended = ("returned" if job.successful() else "failed") if job.ready() else "pending"
    sys.stdout.write(f"{again} {ended}\n")
    for process in pool._pool:
        _kill(process)


def _kill(process: Any) -> None:
    os.kill(process.pid, signal.SIGKILL)
    _wait(lambda: not process._is_alive(), lambda: time.sleep(0.01))


def _wait(until: Callable[[], bool], turn: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not until():
        assert time.monotonic() < deadline, "the pool did not get there"
        turn()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
    sys.stdout.flush()
    os._exit(0)
