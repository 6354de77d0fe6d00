"""The systems that are compared: how each is started, with two processes of one slot each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

SLOTS = 2
_PEERS = "scripts.benchmarks.peers"
_CELERY = ("celery", "-A")


@dataclass(frozen=True)
class System:
    """How its workers are started; tasks and publishing are in its ``module``."""

    name: str
    module: str
    workers: tuple[tuple[str, ...], ...]
    """The words after ``python -m``, for each process to be started."""
    environment: Mapping[str, str] = field(default_factory=dict)
    noop: str = "noop"
    ten_ms: str = "ten_ms"
    hang: str = "hang"
    ours: bool = False
    share: float = 1.0
    """Of ``--n``: a slow system is given fewer tasks, so that its rounds end."""


def _celery(module: str, *words: str) -> tuple[str, ...]:
    return (*_CELERY, module, "worker", "--loglevel=WARNING", *words)


def _prefork(module: str) -> tuple[tuple[str, ...], ...]:
    return (_celery(module, "--pool=prefork", f"--concurrency={SLOTS}"),)


def _solo(module: str) -> tuple[tuple[str, ...], ...]:
    quiet = ("--without-mingle", "--without-gossip", "--without-heartbeat")
    return tuple(
        _celery(module, "--pool=solo", f"--hostname=solo{number}@%h", *quiet)
        for number in range(SLOTS)
    )


_OURS = "scripts.benchmarks.ours"
_STOCK = f"{_PEERS}.stock_celery"
_HUEY = (
    *("huey.bin.huey_consumer", f"{_PEERS}.huey_tasks.huey"),
    *("-w", str(SLOTS), "-k", "process", "-n", "-q"),
)
_DRAMATIQ = ("dramatiq", f"{_PEERS}.dramatiq_actors", "-p", str(SLOTS), "-t", "1")
_TASKIQ = (
    *("taskiq", "worker", f"{_PEERS}.taskiq_tasks:broker", "--log-level", "WARNING"),
    *("--workers", str(SLOTS), "--max-async-tasks", "1", "--max-threadpool-threads", "1"),
)
_RQ = ("rq.cli", "worker-pool", "urgent", "default", "-n", str(SLOTS), "-q", "-w")
_RQ_WORKER = f"{_PEERS}.rq_jobs.PreloadedWorker"

OURS = System(
    "ours, outbox and guard",
    _OURS,
    _prefork(_OURS),
    noop="guarded",
    ten_ms="guarded_ten_ms",
    hang="guarded_hang",
    ours=True,
)
OURS_CALLED = System("ours, celery call", _OURS, _prefork(_OURS), ours=True)
STOCK = System("stock celery", _STOCK, _prefork(_STOCK))
DRAMATIQ = System("dramatiq", f"{_PEERS}.dramatiq_actors", (_DRAMATIQ,))
HUEY = System("huey", f"{_PEERS}.huey_tasks", (_HUEY,))
RQ = System("rq", f"{_PEERS}.rq_jobs", ((*_RQ, _RQ_WORKER),), share=0.1)
TASKIQ = System("taskiq", f"{_PEERS}.taskiq_tasks", (_TASKIQ,))

DURABLE = (OURS, OURS_CALLED, STOCK, DRAMATIQ, TASKIQ, RQ)
"""A task survives the SIGKILL of what runs it. Huey is not among them: on Redis it cannot."""

_FASTEST = {"BENCH_FASTEST": "1"}

FASTEST = (
    System("ours, celery call, prefork", _OURS, _prefork(_OURS), _FASTEST, ours=True),
    System("ours, celery call, 2 solo nodes", _OURS, _solo(_OURS), _FASTEST, ours=True),
    System("stock celery, prefork", _STOCK, _prefork(_STOCK), _FASTEST),
    System("stock celery, 2 solo nodes", _STOCK, _solo(_STOCK), _FASTEST),
    System(
        "dramatiq, no middleware, prefetch 1000",
        DRAMATIQ.module,
        (_DRAMATIQ,),
        {**_FASTEST, "dramatiq_queue_prefetch": "1000"},
    ),
    HUEY,
    System(
        "taskiq, list broker",
        TASKIQ.module,
        ((*_TASKIQ, "--ack-type", "when_received", "--max-prefetch", "100"),),
        _FASTEST,
    ),
    System(
        "rq, SimpleWorker",
        RQ.module,
        ((*_RQ, f"{_PEERS}.rq_jobs.PreloadedSimpleWorker"),),
        _FASTEST,
        share=0.2,
    ),
)
"""Whatever makes it fast; a task may be lost with its process."""

STORM_PEERS = (STOCK, DRAMATIQ, RQ, HUEY, TASKIQ)
